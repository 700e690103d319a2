"""`tall evaluate` from end to end on tiny models: what is asked, what is left out, what is refused."""

import io
import json
import os
import sys

import parts
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tall_hf import compose, publishing
from tall_hf.cli import app
from tall_hf.data import CorpusSettings, prepare
from tall_hf.evaluation import APPROACHES, benchmark, report
from tall_hf.evaluation import evaluate as run_evaluation
from tall_hf.evaluation.plots import plot_all
from tall_hf.evaluation.store import KeptCost
from tall_hf.measuring.cost import Cost


SENTENCES = [*parts.HEBREW, "דנה נוסעת לעבודה בבוקר", "משה אוכל תפוח גדול", "רות קוראת ספר ירוק", "יוסי עייף מאוד"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, composed):
    """A saved TALL, and a corpus prepared for it."""
    root = tmp_path_factory.mktemp("evaluate")
    model, processor = composed()
    publishing.save(model, processor, root / "tall")
    settings = CorpusSettings(min_words=2, validation_share=0.3)
    prepare(model, processor, SENTENCES, root / "data", settings=settings, num_beams=1)
    return root


@pytest.fixture
def held_out(tmp_path):
    path = tmp_path / "held_out.txt"
    path.write_text('דנה גרה בבית האדום\nיוסי קורא ספר\nרות גרה בחיפה.\nשלום "\n', encoding="utf-8")
    return path


@pytest.fixture
def drawn(monkeypatch):
    """Folders for plots: drawing takes longer than all the rest, so one test does it."""
    folders = []
    monkeypatch.setattr(report, "plot_all", lambda scores, folder: folders.append(folder))
    return folders


@pytest.fixture
def evaluate(folders, held_out, tmp_path, drawn):
    """Runs the command, with what the arguments do not say."""

    def run(*arguments, model=folders / "tall", text=held_out):
        command = ["evaluate", str(model), "--text", str(text), "--output", str(tmp_path / "out"), "--batch-size", "2"]
        return CliRunner().invoke(app, [*command, *map(str, arguments)], env={"COLUMNS": "250"})

    return run


def results(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))


def asked(tmp_path, protocol="clean"):
    return list(results(tmp_path)["protocols"][protocol]["approaches"])


def test_all_that_can_be_asked_is_asked_and_the_rest_is_named_with_what_to_run(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "plot_all", plot_all)
    done = evaluate()
    assert done.exit_code == 0, done.output
    assert asked(tmp_path) == ["tall", "naive", "direct", "decoder_only"]
    assert asked(tmp_path, "paper") == ["tall", "tall_unblocked", "naive", "direct"]
    left_out = results(tmp_path)["left_out"]
    assert set(left_out) == set(APPROACHES) - {*asked(tmp_path, "clean"), "tall_unblocked"}
    assert "tall prepare" in left_out["ngram"] and "--leave-out-llm" in left_out["translator_only"]
    assert "Left out: majority: it learns from a training text; run `tall prepare" in done.output
    # A lone quotation mark is a missing word in the paper's protocol alone.
    protocols = results(tmp_path)["protocols"]
    assert (protocols["clean"]["questions"], protocols["paper"]["questions"]) == (3, 4)
    assert results(tmp_path)["counts"]["clean"]["no_last_word"] == 1
    assert "Protocol clean: 3 sentences" in done.output and "Translating the sentences took" in done.output
    for name in ("report.md", "sentences/clean/tall.csv", "plots/accuracy_clean.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100


def test_the_same_command_again_answers_nothing_anew(evaluate, tmp_path, drawn):
    assert evaluate("--approach", "tall").exit_code == 0
    assert drawn == [tmp_path / "out" / "plots"]
    first = results(tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/**/*.json")}
    assert kept
    assert evaluate("--approach", "tall").exit_code == 0
    assert results(tmp_path) == first  # seconds and memory, too
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/**/*.json")} == kept


def test_what_learns_learns_from_the_prepared_text(evaluate, folders, tmp_path):
    names = ["soft_prompt", "fine_tuned_paper", "fine_tuned", "lora", "ngram", "majority"]
    chosen = [part for name in names for part in ("--approach", name)]
    done = evaluate(
        "--dataset",
        folders / "data",
        "--budget-steps",
        "2",
        "--budget-group-by-length",
        "--protocol",
        "clean",
        *chosen,
    )
    approaches = results(tmp_path)["protocols"]["clean"]["approaches"]
    failed = {name: found["error"] for name, found in approaches.items() if "error" in found}
    # The random translators bring no English word back to the missing one.
    assert set(failed) <= {"soft_prompt"}, done.output
    assert list(approaches) == names
    assert approaches["fine_tuned"]["learned"]["steps"] <= 2
    assert approaches["ngram"]["fitting_cost"]["seconds"] > 0
    assert "frequency" in approaches["ngram"]["splits"]


def test_an_approach_of_ones_own_that_fails_leaves_the_others_their_results(evaluate, tmp_path, monkeypatch):
    (tmp_path / "mine_for_a_test.py").write_text(
        "from tall_hf.evaluation import Answer, Approach\n"
        "class Right(Approach):\n"
        "    name = 'right'\n"
        "    def answer(self, questions, protocol, top_k=5):\n"
        "        return [Answer((question.missing_word,)) for question in questions]\n"
        "class Wrong(Right):\n"
        "    name = 'wrong'\n"
        "    def answer(self, questions, protocol, top_k=5):\n"
        "        raise RuntimeError('not today')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = [part for name in ("Wrong", "Right") for part in ("--user-approach", f"mine_for_a_test:{name}")]
    done = evaluate("--approach", "tall", "--protocol", "clean", *own)
    assert done.exit_code == 1
    approaches = results(tmp_path)["protocols"]["clean"]["approaches"]
    assert approaches["wrong"]["error"] == "RuntimeError: not today"
    assert approaches["right"]["metrics"]["accuracy"] == 1.0
    assert approaches["tall"]["metrics"] is not None
    assert "wrong failed: RuntimeError: not today" in done.output
    assert "Failed: wrong" in done.output


def test_several_talls_by_name(evaluate, folders, tmp_path):
    model = folders / "tall"
    done = evaluate(f"two={model}", "--approach", "tall", "--protocol", "clean", model=f"one={model}")
    assert done.exit_code == 0, done.output
    assert asked(tmp_path) == ["one", "two"]
    found = results(tmp_path)
    assert found["reference"] == "one"
    two = found["protocols"]["clean"]["approaches"]["two"]
    assert two["comparison"]["p_value"] == 1.0
    assert two["metrics"] == found["protocols"]["clean"]["approaches"]["one"]["metrics"]


def test_a_translator_only_of_another_kind_is_refused_before_anybody_is_asked(
    evaluate, folders, tmp_path, part, part_folders
):
    arguments = ("--approach", "translator_only", "--translator-only")
    done = evaluate(*arguments, folders / "tall")
    assert done.exit_code == 1 and "this one has an LLM of 2 layers" in done.output
    done = evaluate(*arguments, part("qwen2"))
    assert done.exit_code == 1 and "is of type 'qwen2', not a TALL" in done.output
    model, processor = compose(**part_folders("m2m_100"), leave_out_llm=True)
    publishing.save(model, processor, tmp_path / "other")
    done = evaluate(*arguments, tmp_path / "other")
    assert done.exit_code == 1 and "different LR→HR translators" in done.output and "translator_only" in done.output
    assert not any((tmp_path / "out" / "answers").iterdir())


def test_without_the_metric_nobody_is_asked(evaluate, tmp_path, monkeypatch):
    name = "tall_hf.hub_cards.metrics.missing_word_accuracy.missing_word_accuracy"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("tall_hf.hub_cards.metrics.missing_word_accuracy.missing_word_accuracy", raising=False)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    done = evaluate("--approach", "tall")
    assert done.exit_code == 1 and "Scoring needs sacrebleu" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", ["translate_corpus", "ask_approaches", "write_report"])
def test_the_folder_is_locked_from_the_first_translation_to_the_report(evaluate, monkeypatch, step):
    original = getattr(benchmark, step)

    def inside(*args, **kwargs):
        second = evaluate("--approach", "tall")
        assert second.exit_code == 1 and f"Another process (pid {os.getpid()}) is at work" in second.output.replace(
            "\n", " "
        )
        return original(*args, **kwargs)

    monkeypatch.setattr(benchmark, step, inside)
    done = evaluate("--approach", "tall", "--protocol", "clean")
    assert done.exit_code == 0, done.output


def test_translating_costs_what_all_calls_took_that_were_killed_at_it(evaluate, tmp_path, monkeypatch):
    original = benchmark.translate_corpus

    def killed(*args, **kwargs):
        [costs] = kept  # as the meter's thread does every few seconds
        costs.keep(Cost(1000.0, 7))
        raise KeyboardInterrupt

    kept = []
    remember = KeptCost.__init__
    monkeypatch.setattr(KeptCost, "__init__", lambda self, path: (remember(self, path), kept.append(self))[0])
    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "translate_corpus", killed)
        assert evaluate("--approach", "tall").exit_code != 0
    monkeypatch.setattr(benchmark, "translate_corpus", original)
    assert evaluate("--approach", "tall").exit_code == 0
    assert 1000 < results(tmp_path)["translation_cost"]["seconds"] < 2000


def test_a_script_without_spaces_from_python(folders, tmp_path, drawn):
    asked, found = run_evaluation(
        folders / "tall",
        ["我爱北京", "你爱上海"],
        tmp_path / "out",
        dataset=folders / "data",
        approaches=["ngram"],
        protocols=["clean"],
        split=list,
        console=Console(file=io.StringIO()),
    )
    assert [(q.truncated, q.missing_word) for q in asked.questions["clean"]] == [("我爱北", "京"), ("你爱上", "海")]
    ngram = found["protocols"]["clean"]["approaches"]["ngram"]
    assert ngram["settings"]["split"] == "list" and list(ngram["splits"]["length"]) == ["4"]


def test_talls_of_different_translators_are_refused(evaluate, folders, tmp_path, composed):
    model, processor = composed(translator="m2m_100")
    publishing.save(model, processor, tmp_path / "other")
    models = (f"two={tmp_path / 'other'}",)
    done = evaluate(*models, "--approach", "tall", model=f"one={folders / 'tall'}")
    assert done.exit_code == 1 and "different LR→HR translators" in done.output


def test_talls_that_read_different_lengths_share_translations_where_nothing_is_cut(
    evaluate, folders, held_out, tmp_path, composed
):
    model, processor = composed("concat")
    publishing.save(model, processor, tmp_path / "concat")
    limit, longest = model.config.max_source_length, composed()[0].config.max_source_length
    assert limit < longest
    arguments = (f"two={tmp_path / 'concat'}", "--approach", "tall", "--protocol", "clean")
    done = evaluate(*arguments, "--dataset", folders / "data", model=f"one={folders / 'tall'}")
    assert done.exit_code == 0, done.output
    together = results(tmp_path)["protocols"]["clean"]["approaches"]
    # One by one each reads the same as beside the other.
    for name, folder in (("one", folders / "tall"), ("two", tmp_path / "concat")):
        assert evaluate("--approach", "tall", "--protocol", "clean", model=f"{name}={folder}").exit_code == 0
        assert results(tmp_path)["protocols"]["clean"]["approaches"][name]["metrics"] == together[name]["metrics"]
    with open(held_out, "a", encoding="utf-8") as file:
        file.write("דנה גרה בבית האדום " * 5 + "מאוד\n")
    done = evaluate(*arguments, model=f"one={folders / 'tall'}")
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert f"1 of the 4 sentences have more than {limit} tokens" in said
    assert f"(at most: one {longest}, two {limit})" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--approach", "ngram"],
            "The approach 'ngram' cannot be asked: it learns from a training text; run `tall prepare",
        ),
        (["--approach", "translator_only"], "run `tall compose` as for the model and with `--leave-out-llm`"),
        (["--approach", "magic"], "Unknown approach magic; there are tall, "),
        (["--approach", "tall_unblocked", "--protocol", "clean"], "'tall_unblocked' takes part under paper only"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--column", "body"], "has no column 'body'"),
        (["--llm", "/no/where"], "`llm` is /no/where, and there is no such folder"),
        (["--user-approach", "nothing"], "is named package.module:Class, got 'nothing'"),
        (["--user-approach", "json:JSONDecoder"], "json has no class JSONDecoder that extends"),
        (["two=x"], "Several models are given as NAME=FOLDER"),
    ],
)
def test_refused_with_what_to_do(evaluate, arguments, message, tmp_path):
    done = evaluate(*arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out" / "results.json").exists()


def test_no_sentences_left(evaluate, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("שלום\n\nספר\n", encoding="utf-8")
    done = evaluate(text=path)
    assert done.exit_code == 1
    assert "Of 3 texts none is left to ask about: 1 empty, 2 a single word" in done.output


def test_a_checkpoint_that_is_no_tall(evaluate, part):
    done = evaluate(model=part("qwen2"))
    assert done.exit_code == 1 and "is of type 'qwen2', not a TALL" in done.output


def test_a_language_model_that_is_gone_is_asked_for_by_option(evaluate, folders, tmp_path, part):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (folders / "tall").iterdir():
        (moved / path.name).symlink_to(path)
    config = json.loads((moved / "config.json").read_text())
    config["components"]["llm"]["name_or_path"] = str(tmp_path / "gone")
    (moved / "config.json").unlink()
    (moved / "config.json").write_text(json.dumps(config))
    done = evaluate("--approach", "direct", model=moved)
    assert done.exit_code == 1 and "name it by `--llm`" in done.output and "gone" in done.output
    assert evaluate("--approach", "direct", "--llm", part("qwen2"), model=moved).exit_code == 0


def test_a_protocol_that_is_not_there_is_named(evaluate):
    done = evaluate("--protocol", "dirty")
    assert done.exit_code == 2 and "'dirty' is not one of 'clean', 'paper'" in " ".join(done.output.split())
