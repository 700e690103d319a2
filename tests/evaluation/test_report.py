"""Tables and files of hand-made results."""

import csv
import dataclasses
import io
import json

import handmade
import pytest
from rich.console import Console

from tall_hf.evaluation import plots, report
from tall_hf.evaluation.scores import compute_scores
from tall_hf.evaluation.tables import cost_rows, quality_rows, split_rows
from tall_hf.measuring.cost import Cost


def clean():
    return compute_scores(handmade.results(), "clean")


def cells(scores, approach):
    found = {}
    for head, rows in (quality_rows(scores, "tall"), cost_rows(scores)):
        for row in rows:
            if row[0] == approach:
                found |= dict(zip(head, row, strict=True))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    console = Console(file=io.StringIO(), width=200)
    returned = report.write_report(
        handmade.results(("clean", "paper")),
        folder,
        training=handmade.training(),
        console=console,
        details={"model": "m"},
    )
    return folder, returned, console.file.getvalue()


def test_the_table_shows_quality_significance_and_cost():
    tall, ngram = cells(clean(), "tall"), cells(clean(), "ngram")
    assert tall["accuracy % [95%]"] == "80.00 [49.0, 94.3]"  # Wilson's interval of 8 of 10
    assert tall["top-5 %"] == "90.00"
    assert tall["MRR"] == "0.850"
    assert tall["perplexity"] == "1.65"  # exp(0.5)
    assert tall["bits/char"] == "0.18"  # 0.5 / ln 2 / 4 letters
    assert (tall["seconds"], tall["seconds learning"], tall["peak memory"]) == ("12.5", "", "1.00 GiB")
    assert tall["p vs tall"] == "" and ngram["p vs tall"] == "0.070"
    assert ngram["perplexity"] == ngram["bits/char"] == "" and ngram["seconds learning"] == "3.0"
    assert ngram["peak memory"] == "3.00 GiB"
    assert cells(clean(), "broken")["accuracy % [95%]"] == "failed"


def test_memory_is_the_accelerators_where_it_was_used():
    results = handmade.results()
    for i, cost in enumerate((Cost(1.0, 2**31, 2**30), Cost(1.0, 2**31, 0))):
        results.runs[i] = dataclasses.replace(results.runs[i], answering=cost, fitting=None)
    scores = compute_scores(results, "clean")
    assert cells(scores, "tall")["peak memory"] == "1.00 GiB"
    assert cells(scores, "ngram")["peak memory"] == "2.00 GiB (host)"


def test_columns_that_nobody_fills_are_left_out():
    scores = [entry for entry in clean() if entry.run.approach != "tall"]
    head, rows = cost_rows(scores)
    assert head == ["approach", "seconds", "seconds learning", "peak memory"]
    assert rows == [["ngram", "0.5", "3.0", "3.00 GiB"]]


def test_the_table_of_groups():
    head, rows = split_rows(clean(), "group", intervals=False)
    assert head == ["approach", "even (n=5)", "odd (n=5)"]
    assert rows == [["tall", "80.00", "80.00"], ["ngram", "20.00", "20.00"]]
    assert split_rows(clean(), "group", intervals=True)[1][0][1].startswith("80.00 [")
    assert split_rows(clean(), "frequency", intervals=True) == ([], [])


def test_the_terminal_and_the_file_show_the_same(written):
    folder, _, shown = written
    markdown = (folder / report.REPORT_NAME).read_text(encoding="utf-8")
    for text in ("80.00 [49.0, 94.3]", "Protocol paper: 10 sentences", "even (n=5)", "0.070"):
        assert text in shown and text in markdown
    assert "broken failed: RuntimeError: out | of\nluck" in shown
    assert "- broken failed: RuntimeError: out | of luck\n" in markdown
    assert "| 0 (n=8) | 1–9 (n=1) |" in markdown  # word frequencies


def test_sentences_are_listed_with_what_was_said(written):
    folder, _, _ = written
    with open(folder / "sentences" / "clean" / "tall.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert rows[8] == {
        "sentence": handmade.QUESTIONS[8].sentence,
        "missing_word": "סוף8",
        "prediction": "אחר",
        "rank": "2",
        "translation": "an English sentence, with a comma",
        "correct": "0",
        "group": "even",
    }
    assert [row["correct"] for row in rows] == ["1"] * 8 + ["0", "0"]
    assert rows[9]["rank"] == ""
    files = sorted(str(path.relative_to(folder)) for path in folder.glob("sentences/*/*"))
    assert files == [
        f"sentences/{protocol}/{name}.csv" for protocol in ("clean", "paper") for name in ("ngram", "tall")
    ]


def test_the_json_holds_what_a_model_card_needs(written):
    folder, returned, _ = written
    found = json.loads((folder / report.RESULTS_NAME).read_text(encoding="utf-8"))
    assert found == returned
    assert (found["seed"], found["batch_size"], found["reference"], found["model"]) == (3, 4, "tall", "m")
    assert found["versions"]["transformers"]
    approaches = found["protocols"]["clean"]["approaches"]
    assert approaches["tall"]["metrics"]["accuracy"] == 0.8
    assert approaches["tall"]["metrics"]["accuracy_interval"] == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert approaches["tall"]["settings"] == {"beams": 16}
    assert approaches["ngram"]["learned"] == {"order": 3}
    assert approaches["ngram"]["comparison"]["p_value"] == pytest.approx(18 / 256)
    assert approaches["ngram"]["fitting_cost"]["seconds"] == 3.0
    assert approaches["ngram"]["splits"]["frequency"]["0"]["n"] == 8
    assert approaches["broken"]["error"].startswith("RuntimeError") and approaches["broken"]["metrics"] is None


def test_a_huge_perplexity_is_written_short():
    results = handmade.results()
    results.runs[0] = dataclasses.replace(results.runs[0], answers=handmade.answers(range(8), log_probability=-30.0))
    assert cells(compute_scores(results, "clean"), "tall")["perplexity"] == "1.1e+13"


def test_what_an_earlier_report_said_of_others_is_gone(tmp_path):
    (tmp_path / "sentences" / "clean").mkdir(parents=True)
    (tmp_path / "sentences" / "clean" / "echo.csv").write_text("old")
    report.write_report(handmade.results(("clean",)), tmp_path, console=Console(file=io.StringIO()))
    assert (tmp_path / "sentences" / "clean" / "tall.csv").exists()
    assert not (tmp_path / "sentences" / "clean" / "echo.csv").exists()


def test_infinite_perplexity_is_json_and_a_cell():
    results = handmade.results()
    results.runs[0].answers[3] = handmade.Answer(("x",), -float("inf"))
    scores = compute_scores(results, "clean")
    assert cells(scores, "tall")["perplexity"] == "∞"
    found = report.results_dict(results, {"clean": scores}, "tall")
    assert found["protocols"]["clean"]["approaches"]["tall"]["metrics"]["perplexity"] == "inf"
    json.dumps(found, allow_nan=False)


def test_the_report_is_written_when_all_have_failed(tmp_path):
    results = handmade.results()
    del results.runs[:2]
    report.write_report(results, tmp_path, console=Console(file=io.StringIO()))
    assert "broken failed" in (tmp_path / report.REPORT_NAME).read_text(encoding="utf-8")


def test_without_matplotlib_all_but_the_plots_is_there(tmp_path, monkeypatch):
    def missing():
        raise ImportError("pip install 'tall-hf[eval]'")

    monkeypatch.setattr(plots, "figure_class", missing)
    console = Console(file=io.StringIO(), width=200)
    report.write_report(handmade.results(), tmp_path, console=console)
    assert "No plots: pip install 'tall-hf[eval]'" in console.file.getvalue()
    assert sorted(path.name for path in tmp_path.iterdir()) == [report.REPORT_NAME, report.RESULTS_NAME, "sentences"]
