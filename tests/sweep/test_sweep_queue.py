"""`tall sweep` on stub commands: killed and resumed, changed, failed, run by two processes, and its report written."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from sweep_grids import BASE
from typer.testing import CliRunner

from tall_hf.cli import app
from tall_hf.files import locked
from tall_hf.microworld import component_path
from tall_hf.sweep import launch, queue
from tall_hf.sweep.queue import Stage, is_done, read_record, record_path, run_queue, threads_of_each


CHILD = Path(__file__).with_name("sweep_child.py")
ROWS = {
    "gated": {},
    "none": {"compose": {"bridge": "none"}},
    "warmup": {"prepare": {"truncation": "none"}, "train": {"loss_positions": "all"}, "evaluate": False},
    "after": {"from": "warmup", "train": {"max_steps": 4}},
}


@pytest.fixture(autouse=True)
def texts(tmp_path, monkeypatch):
    """The files that the base of the grids names."""
    monkeypatch.chdir(tmp_path)
    for name in ("text.txt", "held_out.jsonl", "other.jsonl"):
        Path(name).touch()


@pytest.fixture
def sweep(grid_file, tmp_path):
    """`sweep(rows, *arguments, **entries)` runs the command in this process."""

    def run(rows, *arguments, **entries):
        command = ["sweep", str(grid_file(rows, **entries)), "--output", str(tmp_path / "out"), *arguments]
        result = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def verbs(calls):
    return Counter(call[1] for call in calls)


def test_all_rows_are_run_once_and_reported(sweep, calls, tmp_path):
    result = sweep(ROWS, seeds=[0, 1])
    assert result.exit_code == 0, result.output
    # Parts; gated, which the warm-up shares, and none, with two seeds each.
    assert verbs(calls()) == {"compose": 5, "prepare": 2, "train": 8, "evaluate": 6}
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["rows"]["after"]["steps"] == 12 and report["rows"]["gated"]["accuracy"] == 0.5
    assert {"report.md", "report.csv", "report.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert "| after | 2/2 |" in (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "after" in result.output and "Saved to" in result.output
    assert sweep(ROWS, seeds=[0, 1]).exit_code == 0
    assert calls() == []
    listed = sweep(ROWS, "--list", seeds=[0, 1]).output
    assert listed.count(" done ") == 21 and "missing" not in listed


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_nothing_runs_while_a_row_contradicts_its_parts(sweep, calls, flags):
    parts = {role: str(component_path(role)) for role in ("lr_hr", "llm", "hr_lr")}
    result = sweep({"gated": {"compose": parts}, "wrong": {"compose": parts | {"bridge_heads": 3}}}, *flags)
    assert result.exit_code == 1 and "`compose` of the row 'wrong': " in result.output
    assert calls() == []


def test_a_changed_option_runs_what_it_concerns_and_nothing_else(sweep, calls):
    sweep(ROWS)
    calls()
    sweep({**ROWS, "none": {"compose": {"bridge": "marian"}}})
    assert verbs(calls()) == {"compose": 1, "train": 1, "evaluate": 1}
    # What starts from the warm-up follows it.
    warmup = {**ROWS["warmup"], "train": {"loss_positions": "all", "learning_rate": 0.01}}
    sweep({**ROWS, "warmup": warmup})
    found = calls()
    assert verbs(found) == {"train": 2, "evaluate": 1}
    sweep(ROWS, base={**BASE, "evaluate": {"text": "other.jsonl"}})
    assert verbs(calls()) == {"evaluate": 3}
    # Another name, another order, and what was there before.
    sweep({"renamed": ROWS["none"], "gated": {}})
    assert calls() == []


def test_a_new_seed_is_added_to_those_that_are_done(sweep, calls):
    sweep({"gated": {}}, seeds=[0])
    calls()
    sweep({"gated": {}}, seeds=[0, 1])
    assert verbs(calls()) == {"compose": 1, "train": 1, "evaluate": 1}


def test_a_row_that_fails_leaves_the_others_and_is_tried_again(sweep, calls, monkeypatch, tmp_path):
    monkeypatch.setenv("STUB_FAIL", "loss_positions=all")
    result = sweep(ROWS)
    assert result.exit_code == 1
    assert "Not done: train:" in result.output and "(warmup)" in result.output and "(after)" in result.output
    assert verbs(calls()) == {"compose": 2, "prepare": 2, "train": 3, "evaluate": 2}
    report = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "| gated | 1/1 | 50.00" in report and "| after | 0/1 |" in report
    assert "Not done: warmup: train:" in report and "failed, see logs/train." in report
    monkeypatch.delenv("STUB_FAIL")
    assert sweep(ROWS).exit_code == 0
    assert verbs(calls()) == {"train": 2, "evaluate": 1}


def test_some_rows_are_run_with_what_they_start_from(sweep, calls):
    result = sweep(ROWS, "--only", "aft*")
    assert result.exit_code == 0
    assert verbs(calls()) == {"compose": 2, "prepare": 2, "train": 2, "evaluate": 1}
    refused = sweep(ROWS, "--only", "nobody")
    assert refused.exit_code == 1
    assert "No row is called nobody; there are gated, none, warmup, after" in refused.output
    # One that is mistyped is not passed over for another that is there.
    both = sweep(ROWS, "--only", "none", "--only", "nobody")
    assert both.exit_code == 1 and "No row is called nobody; there are" in both.output


def test_a_dry_run_and_an_early_report_change_nothing(sweep, calls, tmp_path):
    out = sweep(ROWS, "--dry-run").output
    assert out.count("# train:") == 4 and "tall train" not in out and not (tmp_path / "out").exists()
    assert sweep(ROWS, "--report").exit_code == 0
    assert calls() == [] and "| gated | 0/1 |" in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_an_error_in_the_grid_ends_in_one_line(sweep, calls, tmp_path):
    result = sweep({"a": {"compose": {"brigde": "none"}}})
    assert result.exit_code == 1 and "Did you mean 'bridge'?" in result.output and calls() == []
    missing = sweep({"a": {"evaluate": {"text": "nowhere.txt"}}})
    assert "There is no file nowhere.txt, the `text` of `evaluate` of the row 'a'" in missing.output and calls() == []
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        assert f"Another process (pid {os.getpid()}) is at work in {tmp_path}" in sweep({"a": {}}).output


@pytest.mark.parametrize("place", ["run_queue", "write_report"])
def test_a_disk_without_room_is_named(sweep, tmp_path, monkeypatch, place):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"tall_hf.cli.sweep.{place}", full)
    result = sweep({"a": {}})
    assert result.exit_code == 1 and "Free some space, then run the same command again." in result.output
    assert f"The disk of {tmp_path / 'out'} is full" in result.output.replace("\n", " ")


def test_a_damaged_record_is_named(tmp_path):
    stage = Stage("a", [sys.executable, "-c", "pass"])
    assert run_queue(tmp_path, [stage]) == []
    (tmp_path / "stages" / "a.json").write_text("{", "utf-8")
    with pytest.raises(ValueError, match=r"a.json is damaged .*Delete it; the stage is then run again"):
        run_queue(tmp_path, [stage])


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [launch._own_gpu(rank) for rank in range(5)] == ["0", "1", "2", "3", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [launch._own_gpu(rank) for rank in range(3)] == ["3", "5", "3"]


def test_one_process_of_a_launcher_leaves_nothing_of_it_to_its_commands(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "1")
    assert launch.join_launch() == launch.Launch()
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "ACCELERATE_USE_CPU"} & set(os.environ)


def test_a_process_that_is_not_told_which_it_is_says_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but no RANK says which"):
        launch.join_launch()


def test_attempts_add_up_unless_the_command_has_changed(tmp_path):
    code = "import sys, time; sum(range(3_000_000)); time.sleep(0.15); sys.exit(1)"
    processor_seconds = []
    for attempts in (1, 2):
        assert run_queue(tmp_path, [Stage("a", [sys.executable, "-c", code])]) == ["a"]
        record = read_record(tmp_path, Stage("a", []))
        assert record["seconds"] >= 0.1 * attempts and record["exit_code"] == 1
        processor_seconds.append(record["processor_seconds"])
    assert processor_seconds[1] > processor_seconds[0]
    run_queue(tmp_path, [Stage("a", [sys.executable, "-c", "pass"])])
    assert read_record(tmp_path, Stage("a", []))["seconds"] < record["seconds"]


def test_what_another_interpreter_has_done_is_done(tmp_path):
    stage = Stage("a", [sys.executable, "-c", "pass"])
    run_queue(tmp_path, [stage])
    record = read_record(tmp_path, stage)
    record_path(tmp_path, stage).write_text(json.dumps(record | {"command": ["python3", "-c", "pass"]}))
    assert is_done(tmp_path, stage)
    assert not is_done(tmp_path, Stage("a", [sys.executable, "-c", "1 / 0"]))
    assert not is_done(tmp_path, Stage("a", ["sh", "-c", "pass"]))


@pytest.fixture
def start(grid_file, tmp_path, calls):
    """`start(rows, environment, processes)` starts the command in processes of its own."""

    def run(rows, environment=None, processes=1, **entries):
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*launcher, str(CHILD), str(grid_file(rows, **entries)), "--output", str(tmp_path / "out")]
        return subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return run


def test_killed_in_the_middle_it_goes_on_where_it_was(start, calls, tmp_path):
    go = tmp_path / "go"
    first = start(ROWS, {"STUB_WAIT": "train --model", "STUB_GO": str(go)})
    while not (tmp_path / "calls").exists() or "train" not in (tmp_path / "calls").read_text("utf-8"):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    out = first.communicate()[0]
    assert first.returncode == 128 + signal.SIGTERM, out
    before = calls()
    assert before[-1][1] == "train"
    [stopped] = (tmp_path / "out" / "stages").glob("train.*.json")
    assert json.loads(stopped.read_text("utf-8"))["exit_code"] is None
    second = start(ROWS)
    out = second.communicate()[0]
    assert second.returncode == 0, out
    after = calls()
    # The one that was stopped is begun again, the others are not.
    repeated = {tuple(call) for call in before} & {tuple(call) for call in after}
    assert len(repeated) == 1 and next(iter(repeated))[1] == "train"
    assert verbs(before + after) == {"compose": 2, "prepare": 2, "train": 5, "evaluate": 3}


def test_two_processes_share_the_rows(start, sweep, calls, tmp_path, monkeypatch):
    # An old failure must not be taken for a new one.
    monkeypatch.setenv("STUB_FAIL", "loss_positions=all")
    assert sweep(ROWS, "--only", "warmup", seeds=[0, 1]).exit_code == 1
    monkeypatch.delenv("STUB_FAIL")
    calls()
    child = start(ROWS, processes=2, seeds=[0, 1])
    out = child.communicate()[0]
    assert child.returncode == 0, out
    found = calls()
    assert verbs(found) == {"compose": 2, "prepare": 1, "train": 8, "evaluate": 6}
    assert Counter(call[0] for call in found if call[1] == "train") == {"0": 4, "1": 4}
    assert out.count("Saved to") == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert all(row["seeds_done"] == 2 for row in report["rows"].values())


def test_what_one_process_fails_at_is_left_out_by_the_others(start, calls, tmp_path):
    # The warm-up is one process's, what starts from it the other's.
    rows = {name: ROWS[name] for name in ("warmup", "after", "gated")}
    child = start(rows, {"STUB_FAIL": "loss_positions=all"}, processes=2)
    out = child.communicate()[0]
    assert child.returncode != 0, out
    assert "(after): left out, train:" in out and "Saved to" in out
    found = [(call[0], call[1]) for call in calls() if call[1] in ("train", "evaluate")]
    assert Counter(found) == {("0", "train"): 2, ("0", "evaluate"): 1}


def test_commands_keep_the_memory_they_had_unless_the_user_has_settled_that(tmp_path, monkeypatch):
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4096")
    shown = "import os; print(os.environ['MALLOC_MMAP_MAX_'], os.environ['MALLOC_TRIM_THRESHOLD_'])"
    assert run_queue(tmp_path, [Stage("show", [sys.executable, "-c", shown])]) == []
    assert (tmp_path / "logs" / "show.log").read_text("utf-8") == "0 4096\n"


@pytest.mark.parametrize(
    ("chosen", "count", "threads"),
    [(None, 1, 8), (None, 3, 2), (None, 9, 1), ("1", 1, 1), ("6", 2, 4), ("", 2, 4), ("4,2", 2, 4), ("0", 2, 4)],
)
def test_commands_share_the_cores_unless_fewer_threads_were_asked_for(monkeypatch, chosen, count, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert threads_of_each(count) == threads


def test_a_command_that_a_killed_queue_left_at_work_is_waited_for(start, calls, tmp_path):
    go = tmp_path / "go"
    first = start(ROWS, {"STUB_WAIT": "train --model", "STUB_GO": str(go)})
    while not (tmp_path / "calls").exists() or "train" not in (tmp_path / "calls").read_text("utf-8"):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.02)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    before = calls()
    second = start(ROWS)
    said = []
    while "waiting for it" not in "".join(said):
        said.append(second.stdout.readline())
        assert said[-1], "".join(said)
    [pid] = re.findall(r"train:\w+ is still at work \(pid (\d+)\)", "".join(said))
    assert psutil.Process(int(pid)).cmdline()[2] == "train"
    assert calls() == []  # nothing else is started, for there is one stage at a time
    go.touch()
    out = second.communicate()[0]
    assert second.returncode == 0, "".join(said) + out
    # The command has made its folder, and is called once more to see to the rest.
    assert verbs(before + calls()) == {"compose": 2, "prepare": 2, "train": 5, "evaluate": 3}


def test_nothing_fills_a_folder_that_a_command_left_at_work_fills(tmp_path, monkeypatch):
    script = "import sys, time; log = open('order', 'a', buffering=1); log.write(f'{sys.argv[1]} '); time.sleep(0.1); log.write(f'{sys.argv[1]} ')"
    stages = [
        Stage(name, [sys.executable, "-c", script, name], links={tmp_path / name / "link": tmp_path / "shared"})
        for name in ("left", "next")
    ]
    polls = iter(["123", "123"])
    monkeypatch.setattr(queue, "left_running", lambda _, stage: next(polls, None) if stage.name == "left" else None)
    monkeypatch.chdir(tmp_path)
    assert run_queue(tmp_path, stages, jobs=2) == []
    assert (tmp_path / "order").read_text("utf-8").split() == ["left", "left", "next", "next"]


def test_a_folder_where_a_link_belongs_is_named(tmp_path):
    link = tmp_path / "one" / "fitted"
    link.mkdir(parents=True)
    stage = Stage("one", [sys.executable, "-c", ""], links={link: tmp_path / "shared"})
    with pytest.raises(FileExistsError, match=f"{link} is to be a link to {tmp_path / 'shared'}"):
        run_queue(tmp_path, [stage])
