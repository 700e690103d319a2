"""Models asked a task in several languages: what is kept, what a second call does, the tables, the plot, and what is refused."""

import copy
import io
import json

import numpy as np
import pytest
import stand_ins
import torch
from rich.console import Console

from tall_hf.classification import TASKS, ClassificationTask, evaluate, evaluate_classification, report
from tall_hf.measuring.cost import Cost
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM


CODES = {"en": "eng_Latn", "he": "heb_Hebr"}


@pytest.fixture(scope="module")
def folders(fused, tmp_path_factory):
    """Two saved models of different adapters."""
    root = tmp_path_factory.mktemp("models")
    model, processor = fused()
    other = copy.deepcopy(model)
    torch.manual_seed(5)
    other.mapping.weight.data.normal_(std=0.5)
    for name, saved in (("first", model), ("second", other)):
        saved.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def data_files(tmp_path_factory):
    return stand_ins.xnli(tmp_path_factory.mktemp("xnli"), splits=("test",), repeat=2)


@pytest.fixture
def drawn(monkeypatch):
    """Paths of plots: drawing takes longer than all the rest, so one test does it."""
    paths = []
    monkeypatch.setattr(report, "plot_languages", lambda results, path: paths.append(path))
    return paths


@pytest.fixture
def run(folders, data_files, tmp_path, drawn):
    def run(*models, task=TASKS["xnli"], **options):
        named = {name: folders / name for name in models or ("first",)}
        console = Console(file=io.StringIO(), width=200)
        options = {"languages": ["en", "he"], "data_files": data_files, "source_langs": CODES} | options
        results = evaluate_classification(named, task, tmp_path / "out", dtype="float32", console=console, **options)
        return results, console.file.getvalue()

    return run


def predictions(tmp_path):
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "predictions").rglob("*.json")}


def test_a_table_for_each_language_with_the_average(run, folders, fused, tmp_path, monkeypatch):
    results, printed = run("first", "second")
    out = tmp_path / "out"
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == json.loads(json.dumps(results))
    assert list(results["languages"]) == ["en", "he"] and results["reference"] == "first"
    for entry in results["languages"].values():
        assert entry["n"] == 8 and entry["chance"] == pytest.approx(1 / 3) and entry["majority"] == 0.5
        for scores in entry["models"].values():
            low, high = scores["accuracy_interval"]
            assert low <= scores["accuracy"] <= high and (out / scores["predictions"]).is_file()
            assert scores["cost"]["seconds"] > 0
        assert set(entry["models"]["second"]["comparison"]) == {
            "difference",
            "interval",
            "p_value",
            "adjusted_p_value",
        }
        assert "comparison" not in entry["models"]["first"]
    for model in ("first", "second"):
        accuracies = [entry["models"][model]["accuracy"] for entry in results["languages"].values()]
        assert results["average"]["models"][model]["accuracy"] == pytest.approx(np.mean(accuracies))
    # What is kept is what the model scores.
    model, processor = fused()
    kept = json.loads((out / results["languages"]["he"]["models"]["first"]["predictions"]).read_text(encoding="utf-8"))
    question = kept["questions"][1]
    labels = list(question["scores"])
    expected = model.label_log_probabilities(question["text"], processor, labels, source_lang="heb_Hebr")[0]
    assert list(question["scores"].values()) == pytest.approx(expected.tolist(), rel=1e-3)
    assert question["prediction"] == labels[int(expected.argmax())] and question["answer"] == "Neutral"
    text = (out / "report.md").read_text(encoding="utf-8")
    for part in ("# xnli", "## Accuracy in 2 languages", "| average |", "## Macro-F1", "## Differences from first"):
        assert part in text
    assert "first accuracy % [95%]" in printed and "majority %" in printed and "second p" in printed
    monkeypatch.undo()
    assert report.plot_languages(results, tmp_path / "plot.png").stat().st_size > 5000
    assert {path.name for path in tmp_path.iterdir()} == {"out", "plot.png"}


def test_the_same_call_again_scores_nothing_anew(run, tmp_path, monkeypatch):
    first, _ = run()
    before = predictions(tmp_path)
    assert len(before) == 2
    with monkeypatch.context() as patch:
        patch.setattr(LayerFusionForCausalLM, "label_log_probabilities", None)
        again, _ = run()
    assert again == first and predictions(tmp_path) == before
    # Other questions, other settings, other files; the earlier ones stay.
    run(max_questions=3)
    assert len(predictions(tmp_path)) == 4
    run(normalize="tokens", languages=["he"])
    run(include_end=False, languages=["he"])
    run(batch_size=3, languages=["he"])  # changes nothing that is scored
    assert len(predictions(tmp_path)) == 6
    assert before.items() <= predictions(tmp_path).items()


def test_killed_it_goes_on_with_the_language_where_it_stopped(run, tmp_path, monkeypatch):
    undisturbed, _ = run()
    (tmp_path / "out").rename(tmp_path / "undisturbed")
    original, calls = LayerFusionForCausalLM.label_log_probabilities, []

    def counted(self, texts, *args, source_lang=None, **kwargs):
        calls.append(source_lang)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, texts, *args, source_lang=source_lang, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(LayerFusionForCausalLM, "label_log_probabilities", counted)
        with pytest.raises(KeyboardInterrupt):
            run(batch_size=4)
        assert calls == ["eng_Latn", "eng_Latn", "heb_Hebr"]
        assert [path.name[:3] for path in predictions(tmp_path)] == ["en-"]
        assert not (tmp_path / "out" / "results.json").exists()
        resumed, _ = run(batch_size=4)
        assert calls[3:] == ["heb_Hebr"] * 2
    for language in ("en", "he"):
        mine, theirs = (r["languages"][language]["models"]["first"] for r in (resumed, undisturbed))
        assert mine["accuracy"] == theirs["accuracy"] and mine["macro_f1"] == theirs["macro_f1"]


def test_questions_with_labels_of_their_own(run, tmp_path):
    rows = [
        {"text": "דנה גרה", "label": "Haifa", "from": ["Haifa", "Dana"]},
        {"text": "שלום", "label": "bus", "from": ["bus", "sea", "world"]},
        {"text": "יוסי גר", "label": "sea", "from": ["bus", "sea", "world"]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = ClassificationTask(name="own", source="{text}", prompt="It is", choices_column="from")
    results, _ = run(task=task, languages=["he"], data_files=path)
    entry = results["languages"]["he"]
    assert entry["chance"] == pytest.approx((1 / 2 + 2 / 3) / 3) and entry["majority"] == pytest.approx(2 / 3)
    kept = json.loads((tmp_path / "out" / entry["models"]["first"]["predictions"]).read_text(encoding="utf-8"))
    assert [list(question["scores"]) for question in kept["questions"]] == [row["from"] for row in rows]
    assert results["average"]["models"]["first"]["accuracy"] == entry["models"]["first"]["accuracy"]


def test_a_damaged_file_is_named(run, tmp_path):
    run(languages=["he"])
    (path,) = predictions(tmp_path)
    for text in ("{", '{"questions": [], "cost": {}}', "[]"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=f"{path.name} is damaged .*Delete it"):
            run(languages=["he"])


def test_what_is_refused_before_any_model_is_read(run, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(LayerFusionForCausalLM, "from_pretrained", None)
    with pytest.raises(FileNotFoundError, match="sw"):
        run(languages=["sw"])
    with pytest.raises(ValueError, match="names no languages"):
        run(languages=[])
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        evaluate_classification({"a": tmp_path}, TASKS["xnli"], tmp_path / "out")
    (tmp_path / "config.json").write_text('{"model_type": "tall"}', encoding="utf-8")
    with pytest.raises(ValueError, match="of type 'tall', not a LayerFusionForCausalLM"):
        evaluate_classification({"a": tmp_path}, TASKS["xnli"], tmp_path / "out")
    with pytest.raises(ValueError, match="got 'a/b'"):
        evaluate_classification({"a/b": folders / "first"}, TASKS["xnli"], tmp_path / "out")
    with pytest.raises(ValueError, match="no model"):
        evaluate_classification({}, TASKS["xnli"], tmp_path / "out")
    with pytest.raises(FileExistsError, match="no folder of an evaluation of labels"):
        evaluate_classification({"a": folders / "first"}, TASKS["xnli"], tmp_path)


def test_an_encoder_of_many_languages_wants_to_know_which(run):
    with pytest.raises(ValueError, match="wants the code of the language .*--source-lang he=CODE"):
        run(source_langs={"en": "eng_Latn"})
    with pytest.raises(ValueError, match="does not know the language code 'iw'"):
        run(source_langs={"en": "eng_Latn", "he": "iw"})


def test_without_matplotlib_the_rest_is_written(run, monkeypatch, tmp_path):
    def missing(*args):
        raise ImportError("no matplotlib")

    monkeypatch.setattr(report, "plot_languages", missing)
    _, printed = run()
    assert "No plot: no matplotlib" in printed and (tmp_path / "out" / "report.md").is_file()


def test_differences_are_of_the_same_questions_and_adjusted_together(tmp_path):
    answers = ["a", "b"] * 20
    wrong = ["b", "a"] * 20

    def made(model, language, right):
        return evaluate.Predictions(model, language, answers, answers[:right] + wrong[right:], tmp_path / "x", Cost())

    entries = [made("one", "en", 20), made("one", "he", 20), made("two", "en", 30), made("two", "he", 20)]
    choices = {language: [["a", "b"]] * 40 for language in ("en", "he")}
    task = ClassificationTask(name="own", source="{text}", labels={0: "a", 1: "b"}, parallel=True)
    results = report.results_dict(task, entries, choices, tmp_path)
    english, hebrew = (results["languages"][name]["models"]["two"]["comparison"] for name in ("en", "he"))
    assert english["difference"] == 0.25 and hebrew["difference"] == 0
    assert english["p_value"] == pytest.approx(2 / 2**10) and english["adjusted_p_value"] == pytest.approx(4 / 2**10)
    assert hebrew["p_value"] == hebrew["adjusted_p_value"] == 1
    average = results["average"]["models"]["two"]["comparison"]
    assert average["difference"] == 0.125 and average["interval"][0] < 0.125 < average["interval"][1]
    head, rows = report.difference_rows(results)
    assert head == ["language", "two points [95%]", "two p"] and rows[0][1].startswith("+25.00 [+")
    assert rows[0][2] == "0.004" and rows[2][0] == "average" and rows[2][2] == ""


def test_questions_with_other_answers_are_not_parallel(tmp_path):
    task = ClassificationTask(name="own", source="{text}", labels={0: "a", 1: "b"}, parallel=True)
    answers = ["a", "b"] * 20
    widths = []
    for hebrew in (answers, answers[::-1]):
        entries = [
            evaluate.Predictions("one", language, asked, asked[:20] + ["?"] * 20, tmp_path / "x", Cost())
            for language, asked in (("en", answers), ("he", hebrew))
        ]
        results = report.results_dict(task, entries, {name: [["a", "b"]] * 40 for name in ("en", "he")}, tmp_path)
        low, high = results["average"]["models"]["one"]["accuracy_interval"]
        widths.append(high - low)
    # Those of two languages that stand and fall together are as unsure as one language's.
    assert widths[1] == pytest.approx(widths[0] / 2**0.5, rel=0.15)
