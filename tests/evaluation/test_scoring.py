"""Scoring: ranks and the metric's figures, from answers."""

import subprocess
import sys

import numpy as np
import pytest

from tall_hf.evaluation.approach import Answer, Question
from tall_hf.evaluation.scoring import ranks, score
from tall_hf.hub_cards.metrics.missing_word_accuracy.missing_word_accuracy import MissingWordAccuracy


QUESTIONS = [Question("הילדה קוראת", "ספר"), Question("הוא חזר אל", "הבית"), Question("שלום לך", "ילד")]
ANSWERS = [
    Answer(("ספר.", "עט"), log_probability=-0.5),
    Answer(("בית", '"בית"', "הבית"), log_probability=-1.5),
    Answer((), log_probability=-4.0),
]


def test_score_is_the_metric(tmp_path):
    results = score(ANSWERS, QUESTIONS, n_resamples=500, seed=1)
    assert results["accuracy"] == pytest.approx(1 / 3)
    assert results["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 2) / 3)
    assert results["perplexity"] == pytest.approx(np.exp(2))
    module = MissingWordAccuracy(cache_dir=str(tmp_path))
    assert results == module.compute(
        predictions=[list(answer.words) for answer in ANSWERS],
        references=[question.missing_word for question in QUESTIONS],
        log_probabilities=[answer.log_probability for answer in ANSWERS],
        n_resamples=500,
        seed=1,
    )


def test_answers_without_probabilities_have_no_perplexity():
    assert score([Answer(("ספר",))], QUESTIONS[:1])["perplexity"] is None


@pytest.mark.parametrize("protocol, expected", [("clean", [1, 2, 0]), ("paper", [1, 3, 0])])
def test_ranks_count_words_that_are_one_under_the_protocol_once(protocol, expected):
    assert ranks(ANSWERS, QUESTIONS, protocol).tolist() == expected


@pytest.mark.parametrize("function", [score, ranks])
def test_bad_input(function):
    with pytest.raises(ValueError, match="2 answers and 3 questions"):
        function(ANSWERS[:2], QUESTIONS)
    with pytest.raises(ValueError, match="no questions"):
        function([], [])
    with pytest.raises(ValueError, match="'clean', 'paper', got 'exact'"):
        function(ANSWERS, QUESTIONS, "exact")


def test_nothing_optional_is_imported_and_scoring_says_what_to_install():
    child = """
import sys
import transformers.trainer
# It imports peft by itself, where it is installed.
for name in [name for name in sys.modules if name.split(".")[0] == "peft"]:
    del sys.modules[name]
import tall_hf
import tall_hf.cli
import tall_hf.evaluation
optional = {"ctranslate2", "evaluate", "gradio", "matplotlib", "nltk", "peft", "sacrebleu"}
assert not (found := optional & {name.split(".")[0] for name in sys.modules}), found
sys.modules["evaluate"] = sys.modules["sacrebleu"] = None
from tall_hf.evaluation import Answer, Question, score
from tall_hf.measuring.statistics import mcnemar
assert mcnemar([True], [False]) == 1
try:
    score([Answer(("א",))], [Question("ב", "א")])
except ImportError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
    assert answer.stdout == (
        "Scoring needs evaluate, which is not installed; install it with `pip install 'tall-hf[eval]'`.\n"
    ), answer.stderr
