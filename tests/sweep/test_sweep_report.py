"""The figures of a sweep's report, against a folder made by hand, and what they are drawn from."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from tall_hf.measuring.statistics import mcnemar, paired_bootstrap, share
from tall_hf.sweep.compare import accuracy_interval, crossed_bootstrap
from tall_hf.sweep.outcomes import Outcome, Point
from tall_hf.sweep.plot import _side_by_side
from tall_hf.sweep.queue import record_path
from tall_hf.sweep.report import write_report
from tall_hf.sweep.stages import build_stages


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def done(output, stage, seconds, exit_code=0, **record):
    """The record of a stage that took so long."""
    record = {"processor_seconds": 2 * seconds, "peak_memory": 2**30, **record}
    write(record_path(output, stage), {"command": stage.command, "exit_code": exit_code, "seconds": seconds, **record})


def train(output, trained, seconds, accuracies, parameters=1000, kept=None, **record):
    """A training on 10 rows in steps of 4, evaluated every 2 steps, of which the last evaluation is logged twice."""
    steps = 2 * len(accuracies)
    history = [{"step": 1, "loss": 3.0}]
    history += [{"step": 2 * (i + 1), "eval_last_word_accuracy": one} for i, one in enumerate(accuracies)]
    history.append({"step": steps, "eval_last_word_accuracy": kept or accuracies[-1]})
    write(trained.folder / "trainer_state.json", {"log_history": history})
    write(trained.folder / "training_settings.json", {"batch_size": 4, "dataloader_drop_last": False})
    metrics = {"eval_last_word_accuracy": kept or accuracies[-1], "trainable_parameters": parameters, "steps": steps}
    metrics |= {"train_rows": 10, "samples": 10 * (steps // 3) + 4 * (steps % 3), "peak_accelerator_memory": None}
    write(trained.folder / "metrics.json", metrics)
    done(output, trained.train, seconds, **record)


def answer(output, trained, right):
    """Answers to questions of which two are the same sentence."""
    path = trained.evaluation / "sentences" / "clean" / "tall.csv"
    path.parent.mkdir(parents=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "missing_word", "prediction", "correct"])
        writer.writerows([f"sentence {max(i, 1)}", "word", "?", one] for i, one in enumerate(right))
    done(output, trained.evaluate, 5)


@pytest.fixture
def trainings(grid, tmp_path):
    """A grid, and its trainings by row and seed."""
    rows = {
        "control": {},
        "warmup": {"evaluate": False, "train": {"loss_positions": "all"}, "prepare": {"truncation": "none"}},
        "after": {"from": "warmup"},
        "aligned": {"pretrain_alignment": {}},
        "missing": {"compose": {"bridge": "none"}},
    }
    read = grid(rows, seeds=[0, 1], control="control")
    _, made = build_stages(read, tmp_path)
    return read, made, {(one.row, one.seed): one for one in made}


def report_of(read, made, output):
    out = io.StringIO()
    return write_report(read, made, output, Console(file=out, width=400)), out.getvalue()


def test_every_figure_of_the_table(trainings, tmp_path):
    read, made, of = trainings
    # 90% of 0.5 is reached at the third evaluation, of 0.4 at the second.
    train(tmp_path, of["control", 0], 60, [0.1, 0.2, 0.45, 0.5], kept=0.6, peak_memory=2**31)
    train(tmp_path, of["control", 1], 80, [0.1, 0.4, 0.1, 0.4])
    for seed in (0, 1):
        train(tmp_path, of["warmup", seed], 10, [0.01])
        train(tmp_path, of["after", seed], 30, [0.2, 0.4], parameters=2000)
        done(tmp_path, of["aligned", seed].align, 15, peak_memory=3 * 2**30, processor_seconds=None)
    train(tmp_path, of["aligned", 0], 30, [0.3, 0.3])
    right = {
        ("control", 0): [1, 1, 1, 0, 0, 0],
        ("control", 1): [1, 0, 1, 0, 0, 1],
        ("after", 0): [1, 1, 1, 1, 1, 0],
        ("after", 1): [1, 1, 1, 1, 0, 1],
    }
    for name, answers in right.items():
        answer(tmp_path, of[name], answers)
    report, shown = report_of(read, made, tmp_path)
    rows = report["rows"]

    control, after, aligned = rows["control"], rows["after"], rows["aligned"]
    assert control["accuracy"] == pytest.approx(6 / 12) and after["accuracy"] == pytest.approx(10 / 12)
    assert (control["questions"], control["seeds_done"], aligned["seeds_done"]) == (6, 2, 1)
    own, others = (np.array([right[name, seed] for seed in (0, 1)]) for name in ("after", "control"))
    assert after["comparison_difference"] == pytest.approx(4 / 12) and after["comparison_seeds"] == 2
    assert after["comparison_p_value"] == mcnemar(own.ravel(), others.ravel()) == 0.125  # 4 better, none worse
    assert after["comparison_adjusted_p_value"] == 0.125  # the only row that can be compared
    low, high = after["comparison_interval"]
    assert low < 4 / 12 < high
    assert aligned["comparison_difference"] is None and control["comparison_difference"] is None

    assert control["steps"] == 8 and control["samples"] == 2 * 10 + 2 * 4
    assert control["steps_to_90_percent"] == (6 + 4) / 2
    assert control["samples_to_90_percent"] == (20 + 14) / 2
    assert control["validation_accuracy"] == (0.6 + 0.4) / 2  # of the model that was kept
    assert control["seconds"] == 70 and control["processor_seconds"] == 140
    assert control["peak_memory"] == 2**31
    # What it started from counts: 2 steps and 8 rows, and 10 seconds.
    assert (after["steps"], after["samples"], after["seconds"]) == (2 + 4, 8 + 14, 40)
    assert after["steps_to_90_percent"] == 2 + 4 and after["samples_to_90_percent"] == 8 + 14
    assert after["trainable_parameters"] == 2000
    assert aligned["seconds"] == 45 and aligned["processor_seconds"] is None and aligned["peak_memory"] == 3 * 2**30
    # The fastest row ends after 40 seconds; the warm-up is no row to be compared. By then the control has been evaluated
    # after 4 of 8 steps, of which each took 7.5 or 10 seconds, and the aligned row once: 15 + 2 * 7.5.
    assert report["equal_time"] == {"seconds": 40, "of_processor": False}
    assert control["validation_accuracy_at_equal_time"] == pytest.approx((0.2 + 0.4) / 2)
    assert after["validation_accuracy_at_equal_time"] == 0.4
    assert aligned["validation_accuracy_at_equal_time"] == 0.3
    curve = after["seeds"][0]["curve"]
    assert [(point["steps"], point["samples"], point["seconds"]) for point in curve] == [
        (2, 8, 10),
        (4, 16, 25),
        (6, 22, 40),
    ]

    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert "| control | 2/2 | 50.00 [" in markdown and "| after | 2/2 | 83.33 [" in markdown
    assert "| missing | 0/2 |  |" in markdown and "+33.33 [" in markdown and "validation % after 40 s" in markdown
    assert "Not done: aligned, seed 1: train:" in markdown and "Not done: missing, seed 0: train:" in markdown
    assert "minus control" in shown and "3.00 GiB" in shown
    with open(tmp_path / "report.csv", encoding="utf-8", newline="") as file:
        table = {row["row"]: row for row in csv.DictReader(file)}
    assert float(table["after"]["comparison_interval_low"]) == low and table["missing"]["accuracy"] == ""
    assert (tmp_path / "report.png").stat().st_size > 5000


def test_only_seeds_and_questions_that_both_have_are_compared(trainings, tmp_path):
    read, made, of = trainings
    for name in (("control", 1), ("aligned", 0), ("aligned", 1)):
        done(tmp_path, of["aligned", 0].align, 1)
        done(tmp_path, of["aligned", 1].align, 1)
        train(tmp_path, of[name], 10, [0.1])
    answer(tmp_path, of["control", 1], [1, 1, 0, 0])
    answer(tmp_path, of["aligned", 0], [0, 0, 0, 0, 0])
    answer(tmp_path, of["aligned", 1], [1, 1, 1, 0, 0])
    rows = report_of(read, made, tmp_path)[0]["rows"]
    assert rows["aligned"]["comparison_difference"] == 1 / 4 and rows["aligned"]["comparison_seeds"] == 1
    interval = paired_bootstrap([1, 1, 1, 0], [1, 1, 0, 0])
    assert tuple(rows["aligned"]["comparison_interval"]) == pytest.approx(interval)
    assert rows["aligned"]["accuracy"] == pytest.approx(3 / 10)
    assert (rows["aligned"]["accuracy_lowest_seed"], rows["aligned"]["accuracy_highest_seed"]) == (0, 3 / 5)
    markdown = (tmp_path / "report.md").read_text("utf-8").splitlines()
    cells = {line.split("|")[1].strip(): [one.strip() for one in line.split("|")] for line in markdown if "|" in line}
    place = cells["row"].index("by seed %")
    assert [cells[name][place] for name in ("aligned", "control", "missing")] == ["0.00 to 60.00", "", ""]
    assert tuple(rows["control"]["accuracy_interval"]) == share([1, 1, 0, 0])["accuracy_interval"]


def test_a_failed_stage_and_a_stale_record_are_not_taken_for_results(trainings, tmp_path):
    read, made, of = trainings
    train(tmp_path, of["control", 0], 10, [0.1], exit_code=1)
    train(tmp_path, of["missing", 0], 10, [0.1], command=["another"])
    report, shown = report_of(read, made, tmp_path)
    assert report["rows"]["control"]["seeds_done"] == report["rows"]["missing"]["seeds_done"] == 0
    assert "Not done: control, seed 0: train:" in shown and "failed, see logs/train." in shown
    (of["control", 1].folder).mkdir(parents=True)
    done(tmp_path, of["control", 1].train, 10)
    (of["control", 1].folder / "metrics.json").write_text("{", "utf-8")
    with pytest.raises(ValueError, match=r"metrics.json is damaged"):
        report_of(read, made, tmp_path)


def test_intervals_over_seeds_and_questions():
    generator = np.random.default_rng(0)
    right = generator.random((8, 400)) < np.linspace(0.3, 0.7, 8)[:, None]
    low, high = accuracy_interval(right)
    assert low < right.mean() < high
    # Seeds that differ as much widen the interval far beyond that of 3,200 independent answers ...
    wilson = share(right.ravel())["accuracy_interval"]
    assert high - low > 3 * (wilson[1] - wilson[0])
    # ... and about to what the spread of their means gives.
    spread = 2 * 1.96 * right.mean(axis=1).std() / np.sqrt(8)
    assert high - low == pytest.approx(spread, rel=0.15)
    # Seeds that answer alike leave the questions' spread.
    same = np.repeat(right[:1], 3, axis=0)
    wilson = share(same[0])["accuracy_interval"]
    low, high = accuracy_interval(same)
    assert high - low == pytest.approx(wilson[1] - wilson[0], rel=0.1)
    assert accuracy_interval(same[:1]) == wilson
    # No spread at all is no certainty.
    low, high = accuracy_interval(np.ones((3, 50), dtype=bool))
    assert high == 1 and 0.9 < low < 0.95
    low, high = crossed_bootstrap(np.zeros((3, 50)), (-1.0, 1.0))
    assert low == -high < 0


def test_trainings_of_one_thread_are_compared_by_the_processors_time(trainings, tmp_path):
    read, made, of = trainings
    train(tmp_path, of["control", 0], 60, [0.1, 0.2, 0.3, 0.4], threads=1, processor_seconds=40)
    train(tmp_path, of["warmup", 0], 900, [0.01], threads=1, processor_seconds=10)
    # Longer by the clock than the control, for other work ran beside it.
    train(tmp_path, of["after", 0], 400, [0.2, 0.5], threads=1, processor_seconds=20)
    report, shown = report_of(read, made, tmp_path)
    assert report["equal_time"] == {"seconds": 30, "of_processor": True} and report["rows"]["after"]["seconds"] == 1300
    assert "validation % after 30 processor s" in shown
    assert report["rows"]["control"]["validation_accuracy_at_equal_time"] == 0.3
    assert report["rows"]["after"]["validation_accuracy_at_equal_time"] == 0.5


@pytest.mark.parametrize("other", [{"threads": 2}, {"threads": None}, {"threads": 1, "processor_seconds": None}])
def test_one_training_that_the_processors_time_does_not_measure_puts_all_to_the_clock(trainings, tmp_path, other):
    read, made, of = trainings
    train(tmp_path, of["control", 0], 60, [0.1, 0.2, 0.3, 0.4], threads=1, processor_seconds=40)
    train(tmp_path, of["missing", 0], 50, [0.1, 0.2], **other)
    report, shown = report_of(read, made, tmp_path)
    assert report["equal_time"] == {"seconds": 50, "of_processor": False} and "validation % after 50 s" in shown
    assert report["rows"]["control"]["validation_accuracy_at_equal_time"] == 0.3


def test_rows_with_as_many_parameters_are_drawn_apart():
    first, other, second = _side_by_side([100, 300, 100])
    assert first < 100 < second < 101 and other == 300


def test_a_training_that_learned_nothing_is_nowhere_near():
    outcome = Outcome(4, 16, 8.0, None, False, 10, 0, None, 0.0, (Point(4, 16, 8.0, None, 0.0),))
    assert outcome.nearly_there() is None
    assert outcome.accuracy_after(8.0) == 0.0 and outcome.accuracy_after(7.9) is None
