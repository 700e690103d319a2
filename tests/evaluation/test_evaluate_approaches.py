"""Asking approaches: kept answers, kills, and what is learned once."""

import dataclasses
import importlib.util
import linecache
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import answering
import pytest
import torch
from answering import QUESTIONS, Drawing
from counting import Counting, Learning, ask, text

from tall_hf.evaluation import run as run_module
from tall_hf.evaluation.approach import Answer, Question
from tall_hf.evaluation.run import evaluate_approaches
from tall_hf.evaluation.store import KeptCost
from tall_hf.measuring.cost import Cost, CostMeter


def test_questions_are_asked_longest_first_and_answered_in_their_own_order(tmp_path):
    class Echo(Counting):
        def answer(self, questions, protocol, top_k=5):
            self.asked += questions
            return [Answer((question.truncated,)) for question in questions]

    approach = Echo()
    (run,) = ask(approach, tmp_path).runs
    lengths = [len(question.truncated) for question in approach.asked]
    assert lengths == sorted(lengths, reverse=True)
    assert [answer.words[0] for answer in run.answers] == [question.truncated for question in QUESTIONS]
    assert approach.closed == 1


@pytest.mark.parametrize("batches", [1, 5])
def test_a_killed_process_goes_on_behind_its_last_shard_to_the_answers_of_an_undisturbed_one(tmp_path, batches):
    expected = answering.ask(tmp_path / "undisturbed").runs[0].answers
    output = tmp_path / "killed"
    child = [sys.executable, answering.__file__, str(output), str(batches)]
    killed = subprocess.run(
        child, capture_output=True, timeout=120, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    log = output.with_suffix(".jsonl")
    before = len(log.read_text().splitlines()) if log.exists() else 0
    assert before == batches

    run = answering.ask(output).runs[0]
    assert run.answers == expected
    assert len(set(expected)) > 10  # drawn, not constant
    asked_again = len(log.read_text().splitlines()) - before
    assert asked_again == 13 - 2 * (batches // 2)  # of 13 batches, two a shard


def test_seconds_and_memory_of_interrupted_calls_are_added_up(tmp_path):
    class Slow(Counting):
        def answer(self, questions, protocol, top_k=5):
            time.sleep(0.02)
            return super().answer(questions, protocol, top_k)

    first = ask(Slow(fails_at=24), tmp_path, shard_batches=1).runs[0]
    assert first.answers is None and first.answering.seconds >= 3 * 0.02
    again = ask(Slow(), tmp_path, shard_batches=1).runs[0]
    assert again.answering.seconds >= 7 * 0.02
    assert again.answering.seconds > first.answering.seconds
    assert ask(Slow(), tmp_path).runs[0].answering == again.answering  # all kept, nothing measured anew


CHANGES = {
    "settings": lambda output: ask(changed := Counting(beams=2), output) and changed,
    "name": lambda output: ask(changed := Counting(name="other"), output) and changed,
    "batch size": lambda output: ask(changed := Counting(), output, batch_size=9) and changed,
    "top k": lambda output: ask(changed := Counting(), output, top_k=9) and changed,
    "seed": lambda output: ask(changed := Counting(), output, seed=1) and changed,
    "questions": lambda output: ask(changed := Counting(), output, [*QUESTIONS, Question("one", "more")]) and changed,
    "order": lambda output: ask(changed := Counting(), output, QUESTIONS[::-1]) and changed,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_answers_makes_them_anew_and_the_old_ones_stay(tmp_path, change):
    ask(Counting(), tmp_path)
    assert len(CHANGES[change](tmp_path).asked) >= len(QUESTIONS)
    same = Counting()
    ask(same, tmp_path)
    assert same.asked == []


def test_what_does_not_decide_answers_asks_nothing_again(tmp_path):
    ask(Counting(), tmp_path)
    same = Counting()
    marked = [dataclasses.replace(question, translation="read by others", group="g") for question in QUESTIONS]
    # An approach that does not learn has nothing from the training text either.
    ask([Counting("first"), same], tmp_path, marked, training=text("b"), shard_batches=1)
    assert same.asked == []


def test_an_approach_without_settings_is_known_by_its_source_code(tmp_path, monkeypatch):
    def asked(body, name="Mine"):
        """How many questions an approach is asked whose file has this in it."""
        path = tmp_path / "of_my_own.py"
        path.write_text(
            "from tall_hf.evaluation import Answer, Approach\n"
            "class Base(Approach):\n"
            "    name, asked = 'mine', 0\n"
            f"{body}\n"
            "class Mine(Base):\n"
            "    def answer(self, questions, protocol, top_k=5):\n"
            "        self.asked += len(questions)\n"
            "        return [Answer((self.word(),)) for _ in questions]\n"
        )
        linecache.clearcache()
        spec = importlib.util.spec_from_file_location("of_my_own", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "of_my_own", module)
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
        run = ask(approach := module.Mine(), tmp_path / "out").runs[0]
        return approach.asked, run.answers[0].words[0]

    one, other = ("    def word(self): return 'a'", "    def word(self): return 'b'")
    assert [asked(one), asked(one)] == [(50, "a"), (0, "a")]
    assert [asked(other), asked(one)] == [(50, "b"), (0, "a")]


def test_without_source_code_nothing_is_taken_for_the_same(tmp_path, caplog):
    def make():
        found = {}
        source = "class Typed(Drawing):\n    asked = 0\n    def answer(self, *args):\n        self.asked += 1\n"
        exec(
            source + "        return super(Typed, self).answer(*args)\n",
            {"Drawing": Drawing, "__name__": "typed"},
            found,
        )
        return found["Typed"]()

    for approach in (make(), make()):
        ask(approach, tmp_path)
        assert approach.asked > 0
    assert "source code of Typed cannot be read" in caplog.text


@pytest.mark.parametrize("package", ["tall-hf", "transformers"])
def test_another_version_is_asked_anew(tmp_path, monkeypatch, package):
    ask(Counting(), tmp_path)
    monkeypatch.setattr(run_module, "version", lambda name: "9.9" if name == package else version(name))
    ask(updated := Counting(), tmp_path)
    assert len(updated.asked) == len(QUESTIONS)


def test_an_approach_that_reads_translations_is_asked_again_when_they_change(tmp_path):
    def asked(translation):
        approach = Counting()
        approach.reads_translations = True
        ask(approach, tmp_path, [Question("a", "b", translation)])
        return len(approach.asked)

    assert [asked("one"), asked("one"), asked("two")] == [1, 0, 1]


def test_draws_depend_on_approach_protocol_and_seed_and_not_on_who_drew_before(tmp_path):
    def answers(output, name="drawing", seed=0, *before):
        approach = Drawing()
        approach.name = name
        results = evaluate_approaches(
            [*before, approach], {"clean": QUESTIONS, "paper": QUESTIONS}, tmp_path / output, seed=seed
        )
        return {run.protocol: run.answers for run in results.runs if run.approach == name}

    first = answers("one")
    torch.manual_seed(7)
    other = Drawing()
    other.name = "other"
    assert answers("two", "drawing", 0, other) == first
    assert first["clean"] != first["paper"]
    assert answers("three", seed=1) != first
    assert answers("four", "renamed") != first


def test_learning_happens_once_and_again_for_another_text(tmp_path):
    first, again, other = Learning(), Learning(), Learning()
    run = ask(first, tmp_path, training=text("dog")).runs[0]
    assert (first.fits, run.learned, run.answers[0].words) == (1, {"word": "dog"}, ("dog",))
    assert run.fitting.seconds > 0
    kept = ask(again, tmp_path, training=text("dog")).runs[0]
    assert (again.fits, again.loads) == (0, 0)  # every answer is there: not even loaded
    assert (kept.learned, kept.fitting) == (run.learned, run.fitting)
    run = ask(other, tmp_path, training=text("cat", "g")).runs[0]
    assert (other.fits, run.answers[0].words) == (1, ("cat",))


def test_what_was_learned_is_loaded_for_new_questions(tmp_path):
    ask(Learning(), tmp_path, training=text("dog"))
    more = Learning()
    run = ask(more, tmp_path, [Question("new", "one")], training=text("dog")).runs[0]
    assert (more.fits, more.loads, run.answers[0].words) == (0, 1, ("dog",))


def test_answers_that_are_kept_need_no_learning(tmp_path):
    ask(Learning(protocols=("clean", "paper")), tmp_path, training=text("dog"))
    asked = {"clean": QUESTIONS, "paper": QUESTIONS[:9]}

    class Forgetful(Learning):
        def fit(self, training, folder):
            raise RuntimeError("no more")

    forgetful = Forgetful(protocols=("clean", "paper"))
    runs = evaluate_approaches([forgetful], asked, tmp_path, text("dog"), batch_size=8).runs
    assert [run.error for run in runs] == [None, "RuntimeError: no more"]


def test_under_paper_everybody_proposes_one_word(tmp_path):
    class Greedy(Counting):
        def answer(self, questions, protocol, top_k=5):
            return [Answer(tuple("abcdefg"[:top_k])) for _ in questions]

    asked = {"clean": QUESTIONS, "paper": QUESTIONS}
    runs = evaluate_approaches([Greedy(protocols=("clean", "paper"))], asked, tmp_path, top_k=3).runs
    assert [run.answers[0].words for run in runs] == [("a", "b", "c"), ("a",)]


def test_seconds_of_a_learning_that_was_killed_count_too(tmp_path, monkeypatch):
    meter = CostMeter.__exit__

    def four_seconds(self, *args):
        meter(self, *args)
        self.cost = Cost(4.0)

    class Dying(Learning):
        def fit(self, training, folder):
            # What the meter keeps every few seconds; then the process is gone.
            KeptCost(folder.with_name(f"{folder.name}.cost.json")).keep(Cost(3.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(Dying(), tmp_path, training=text("b"))
    monkeypatch.setattr(CostMeter, "__exit__", four_seconds)
    assert ask(Learning(), tmp_path, training=text("b")).runs[0].fitting.seconds == 7.0


def test_evaluations_share_what_was_learned_through_a_link(tmp_path):
    (tmp_path / "shared").mkdir()
    approaches = Learning(), Learning()
    for name, approach in zip("ab", approaches, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fitted").symlink_to(tmp_path / "shared")
        ask(approach, tmp_path / name, training=text("b"))
    assert [(approach.fits, approach.loads) for approach in approaches] == [(1, 0), (0, 1)]
