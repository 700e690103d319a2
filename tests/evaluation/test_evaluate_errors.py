"""Asking approaches: errors of one approach, which are its own, and what is refused."""

import errno
import gc
import weakref

import pytest
from answering import QUESTIONS
from counting import Counting, ask

from tall_hf.evaluation import run as run_module
from tall_hf.evaluation.approach import Answer
from tall_hf.evaluation.run import evaluate_approaches


def test_an_approach_that_raises_half_way_keeps_its_answers_and_the_others_go_on(tmp_path, caplog):
    failing, others = Counting("failing", fails_at=16), [Counting("one"), Counting("two")]
    results = ask([others[0], failing, others[1]], tmp_path)
    assert [run.approach for run in results.failed] == ["failing"]
    assert results.failed[0].error == "RuntimeError: no more" and results.failed[0].answers is None
    assert all(len(run.answers) == len(QUESTIONS) for run in results.runs if run.approach != "failing")
    assert failing.closed == 1
    assert "Traceback" in caplog.text and "no more" in caplog.text
    mended = Counting("failing")
    assert ask(mended, tmp_path).runs[0].error is None
    assert len(mended.asked) == len(QUESTIONS) - 16


@pytest.mark.parametrize("place", ["settings", "fit", "close"])
def test_an_error_anywhere_in_an_approach_is_its_own(tmp_path, place):
    class Broken(Counting):
        calls = 0

        def _fail(self, *args):
            Broken.calls += 1
            raise KeyError("x")

    setattr(Broken, place, Broken._fail)
    broken = Broken("broken", protocols=("clean", "paper"))
    results = evaluate_approaches([broken, Counting()], {"clean": QUESTIONS, "paper": QUESTIONS}, tmp_path)
    assert len(results.of("clean")) == 2 and results.runs[-1].answers
    assert [run.error for run in results.runs if run.approach == "broken"] == [
        None if place == "close" else "KeyError: 'x'"
    ] * 2
    if place == "fit":  # which may take hours
        assert Broken.calls == 1


def test_an_error_of_learning_holds_no_model(tmp_path, caplog):
    class Model:
        pass

    held = []

    class Broken(Counting):
        def fit(self, training, folder):
            model = Model()
            held.append(weakref.ref(model))
            raise RuntimeError("out of memory")

    class Next(Counting):
        def answer(self, questions, protocol, top_k=5):
            gc.collect()
            assert held[0]() is None
            return super().answer(questions, protocol, top_k)

    caplog.set_level("CRITICAL", logger="tall_hf")  # pytest would hold what is logged
    results = ask([Broken("broken"), Next("next")], tmp_path)
    assert [run.error for run in results.runs] == ["RuntimeError: out of memory", None]


def test_a_full_disk_is_named_and_nobodys_error(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_module.AnswerStore, "add", full)
    with pytest.raises(OSError, match=f"The disk of {tmp_path} is full .* same command again"):
        ask(Counting(), tmp_path)


def test_unequal_lengths_are_the_approachs_error(tmp_path):
    class Short(Counting):
        def answer(self, questions, protocol, top_k=5):
            return super().answer(questions, protocol, top_k)[1:]

    error = ask(Short(), tmp_path).runs[0].error
    assert error == "ValueError: It gave 7 answers to 8 questions; one is expected for each, in order."


def test_a_string_of_words_is_no_answer(tmp_path):
    class Plain(Counting):
        def answer(self, questions, protocol, top_k=5):
            return [Answer("word") for _ in questions]

    assert "tuple of words" in ask(Plain(), tmp_path).runs[0].error


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer((7,)), "TypeError: It proposed 7 where a word is expected"),
        (Answer(("a",), 0.5), "ValueError: It gave a log-probability of 0.5; at most 0"),
        (Answer(("a",), float("nan")), "ValueError: It gave a log-probability of nan"),
    ],
)
def test_answers_that_are_none_are_refused_before_they_are_kept(tmp_path, answer, message):
    class Odd(Counting):
        def answer(self, questions, protocol, top_k=5):
            return [answer for _ in questions]

    results = evaluate_approaches([Odd("odd"), Counting()], {"clean": QUESTIONS}, tmp_path)
    assert message in results.runs[0].error and results.runs[1].error is None
    # The same approach, mended, is asked and not taken from what was kept.
    assert evaluate_approaches([Counting("odd")], {"clean": QUESTIONS}, tmp_path).runs[0].answers[0].words == ("a",)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"no folder of an evaluation \(there is config.json\)"):
        ask(Counting(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_an_interrupt_is_not_an_approachs_error_and_loses_no_whole_batch(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ask(interrupted := Counting(fails_at=16, error=KeyboardInterrupt()), tmp_path)
    assert interrupted.closed == 1
    ask(again := Counting(), tmp_path)
    assert len(again.asked) == len(QUESTIONS) - 16


@pytest.mark.parametrize(
    ("approaches", "questions", "settings", "message"),
    [
        ([Counting()], {"clean": []}, {}, "no questions under the protocol 'clean'"),
        ([Counting()], {"dirty": QUESTIONS}, {}, "Unknown protocol dirty; there are clean, paper"),
        ([], {"clean": QUESTIONS}, {}, "there are none"),
        ([Counting()], {"paper": QUESTIONS}, {}, "None of the approaches .counting. takes part"),
        ([Counting(), Counting()], {"clean": QUESTIONS}, {}, "2 approaches are called 'counting'"),
        ([Counting("../up")], {"clean": QUESTIONS}, {}, "also a folder's"),
        ([Counting()], {"clean": QUESTIONS}, {"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
    ],
)
def test_refused(tmp_path, approaches, questions, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate_approaches(approaches, questions, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_questions_without_translations_are_refused_for_those_who_read_them(tmp_path):
    approach = Counting()
    approach.reads_translations = True
    with pytest.raises(ValueError, match="'counting' reads translations, and questions under 'clean' have none"):
        ask(approach, tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    ask(Counting(), tmp_path, shard_batches=1)
    shard = sorted(tmp_path.glob("answers/clean/counting/*/*.json"))[1]
    shard.write_text(shard.read_text()[:40])
    with pytest.raises(ValueError, match=f"{shard.name} is damaged .* Delete .* same command"):
        ask(Counting(), tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match="the shards before it end at question 8"):
        ask(Counting(), tmp_path)


def test_two_processes_do_not_share_a_folder(tmp_path):
    class Inside(Counting):
        def answer(self, questions, protocol, top_k=5):
            with pytest.raises(BlockingIOError, match=r"Another process \(pid \d+\) is at work"):
                ask(Counting("second"), tmp_path)
            return super().answer(questions, protocol, top_k)

    assert ask(Inside(), tmp_path).runs[0].error is None
