"""The metric: which words are the same, figures worked out by hand, intervals that cover, loading by `evaluate` offline."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tall_hf.data import normalize, strip_punctuation
from tall_hf.evaluation.approach import PROTOCOLS
from tall_hf.hub_cards.metrics.missing_word_accuracy import missing_word_accuracy as metric


ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "hub_cards" / "metrics" / "missing_word_accuracy"
# Letters of several scripts with marks, joiners, bidi controls, punctuation, symbols, pictures and all kinds of space.
ALPHABET = "אבגםןְּׁ״׳\"'־-–.,!?…()[] \t\n\u2003\u200b\u200d\u200c\u200e\u202b\ufeff\u00adéeu\u0301\u0308ﬤשׁ₪$%°|*#_•1٣中กำ👩🏽😀\ufe0f\x00`´^"
words = st.text(st.sampled_from(ALPHABET), max_size=12) | st.text(max_size=12)


def compute(predictions, references, **options):
    return metric.missing_word_accuracy(predictions, references, **options)


@given(words)
def test_words_are_normalised_as_the_corpus_was(word):
    clean = normalize(word)
    found = metric.normalize_word(word)
    if " " not in clean:
        assert found == strip_punctuation(clean)
    else:  # several words: spaces go with the punctuation around them
        assert found in clean
        assert found == found.strip() == strip_punctuation(found)


def test_a_word_under_many_marks_is_cut_as_in_the_corpus():
    word = "א" + "\u0301\u0316\u0344" * 30_000
    assert metric.normalize_word(word) == normalize(word)


def test_protocols_are_those_of_the_approaches():
    assert metric.PROTOCOLS == PROTOCOLS


@pytest.mark.parametrize(
    "proposal, missing_word, same",
    [
        ("שלום", "שלום", True),
        ("שלומ", "שלום", False),  # final letters are letters of their own
        ("הבית", "בית", False),  # a prefix makes another word
        ('"שלום"', "שלום", True),
        ("”שלום“,", "שלום", True),
        ("«שלום»", "שלום", True),
        ("שלום!", "שלום", True),
        ("שלום !", "שלום", True),  # a token of punctuation alone is no word
        ("\u200fשלום\u200e", "שלום", True),
        ("\u202bשלום\u202c", "שלום", True),
        ("שלום 😀", "שלום", True),
        ('צה"ל', 'צה"ל', True),
        ('צה"ל', "צה״ל", False),  # the quotation mark and the Hebrew gershayim are two characters
        ("ז'קט", "ז׳קט", False),
        ("צהל", 'צה"ל', False),  # inside a word a mark is part of it
        ("וכו'", "וכו", True),  # and at its end it cannot be told from a quotation mark
        ("בית-ספר", "בית־ספר", False),
        ("בית ספר", "בית", False),  # one word is compared, not the first of several
        ("ש\u05c1לום", "\ufb2aלום", True),  # shin and its dot, decomposed and composed
        ("e\u0301cole", "école", True),
        ("שָׁלוֹם", "שלום", False),  # vowel points count
        ("School", "school", False),  # and so does case
        ("کتاب\u200cها", "کتابها", False),  # a joiner inside a word is spelling
        ("4,5", "4.5", False),
        ("", "שלום", False),
    ],
)
def test_same_word_under_clean(proposal, missing_word, same):
    assert metric.find_ranks([[proposal]], [missing_word]).tolist() == [int(same)]


@pytest.mark.parametrize(
    "proposal, missing_word, same",
    [
        ("שלום.", "שלום", True),
        ("שלום,", "שלום", True),
        ("1.000", "1,000", True),
        ("שלום!", "שלום", False),
        ('"שלום"', "שלום", False),
        ("e\u0301", "é", False),
        (" שלום\n", "שלום", True),
        (",", ",", False),  # nothing is left of either
        (".", ",", False),
    ],
)
def test_same_word_under_paper(proposal, missing_word, same):
    assert metric.find_ranks([[proposal]], [missing_word], "paper").tolist() == [int(same)]


def test_a_script_without_spaces_needs_words_that_were_divided_alike():
    # Thai for "black cat" is written without a space: what is proposed must have been cut where the missing word was.
    assert metric.find_ranks([["แมวดำ"], ["แมว", "ดำ"]], ["แมว", "แมว"]).tolist() == [0, 1]


def test_ranks_count_each_word_once():
    predictions = [["ספר", "ספר.", '"ספר"', "עט"], ["א", "ב", "ג", "ד", "ה", "ו"], [], "עט"]
    assert metric.find_ranks(predictions, ["עט", "ו", "עט", "עט"]).tolist() == [2, 6, 0, 1]


def test_figures_by_hand():
    predictions = [["א"], ["ב", "א"], ["ג", "ד", "ה", "א"], ["ב", "ג", "ד", "ה", "ו", "א"], []]
    results = compute(predictions, ["א"] * 5, log_probabilities=[math.log(p) for p in (0.5, 0.25, 0.25, 0.5, 1)])
    assert results["n"] == 5
    assert results["accuracy"] == 1 / 5
    assert results["top5_accuracy"] == 3 / 5
    assert results["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 6) / 5)
    assert results["character_f_score"] == 1 / 5
    # 6 bits for 5 words of one character.
    assert results["perplexity"] == pytest.approx(2 ** (6 / 5))
    assert results["bits_per_character"] == pytest.approx(6 / 5)
    json.dumps(results)


def test_wilson_interval_by_hand():
    # 10 of 100, as in textbooks: 5.52% to 17.44%.
    assert metric.wilson_interval(0.1, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    z_squared = 1.959964**2
    assert metric.wilson_interval(0, 20) == pytest.approx((0, z_squared / (20 + z_squared)), abs=1e-6)
    assert metric.wilson_interval(1, 20) == pytest.approx((20 / (20 + z_squared), 1), abs=1e-6)


def test_shares_may_have_the_bootstrap_too():
    hits = np.array([1.0] * 10 + [0.0] * 90)
    results = compute([["א" if hit else "ב"] for hit in hits], ["א"] * 100, share_interval="bootstrap", seed=3)
    assert results["accuracy_interval"] == metric.bootstrap_interval(hits, seed=3)
    assert results["accuracy_interval"] != metric.wilson_interval(0.1, 100)
    with pytest.raises(ValueError, match="`share_interval` must be one of 'wilson', 'bootstrap', got 'wald'"):
        compute([["א"]], ["א"], share_interval="wald")


def test_bits_are_of_the_characters_compared():
    # 4 characters without the quotation marks, 8 bits.
    assert compute([[]], ['"שלום"'], log_probabilities=[-8 * math.log(2)])["bits_per_character"] == pytest.approx(2)


@pytest.mark.parametrize("missing", [None, math.nan])
def test_no_perplexity_unless_every_question_has_a_probability(missing):
    results = compute([["א"], ["ב"]], ["א", "א"], log_probabilities=[-1.0, missing])
    assert results["perplexity"] is None
    assert results["bits_per_character"] is None


def test_a_word_held_impossible_makes_perplexity_infinite():
    results = compute([["א"], ["ב"]], ["א", "א"], log_probabilities=[-1.0, -math.inf])
    assert results["perplexity"] == results["bits_per_character"] == math.inf
    assert compute([["א"]], ["א"], log_probabilities=[-1e4])["perplexity"] == math.inf


def test_character_f_score_by_hand():
    # One letter too many: precisions 3/4, 2/3, 1/2 of orders 1 to 3, recalls 1; order 4 is not in the reference.
    precision, recall = (3 / 4 + 2 / 3 + 1 / 2) / 3, 1
    expected = 5 * precision * recall / (4 * precision + recall)
    scores = metric.character_f_scores([["הבית", "בית"], ["בית."], ["לאן"], []], ["בית"] * 4)
    assert scores == pytest.approx([expected, 1, 0, 0])


def test_intervals_hold_the_estimate_and_narrow_with_less_confidence():
    rng = np.random.default_rng(0)
    predictions = [["א", "ב"] if hit else ["ב", "א"] for hit in rng.random(300) < 0.3]
    wide, narrow = (compute(predictions, ["א"] * 300, confidence=confidence) for confidence in (0.99, 0.8))
    for name in ("accuracy", "mean_reciprocal_rank", "character_f_score"):
        (low, high), (inner_low, inner_high) = wide[f"{name}_interval"], narrow[f"{name}_interval"]
        assert low < inner_low < wide[name] < inner_high < high


def test_bootstrap_is_that_of_drawing_questions():
    values = np.random.default_rng(0).choice([0, 1 / 3, 1 / 2, 1], size=400)
    drawn = np.random.default_rng(1).choice(values, size=(20_000, 400)).mean(axis=1)
    interval = metric.bootstrap_interval(values, n_resamples=20_000)
    assert interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=2e-3)


def test_bootstrap_is_a_function_of_its_seed(monkeypatch):
    values = np.random.default_rng(0).random(50)
    first = metric.bootstrap_interval(values, seed=3)
    assert first != metric.bootstrap_interval(values, seed=4)
    monkeypatch.setattr(metric, "_BOOTSTRAP_CHUNK", 1000)
    assert metric.bootstrap_interval(values, seed=3) == first


@pytest.mark.parametrize("value, bounds", [(0, (0, 1)), (1, (0, 1)), (0.5, (0, 1)), (0, (-1, 1))])
def test_interval_of_equal_values_has_a_width(value, bounds):
    others = 1.959964**2 / (50 + 1.959964**2)
    low, high = metric.bootstrap_interval(np.full(50, value), bounds=bounds)
    assert (low, high) == pytest.approx(
        ((1 - others) * value + others * bounds[0], (1 - others) * value + others * bounds[1])
    )


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_intervals_cover_the_truth_as_often_as_they_say(p):
    """2,000 evaluations of 200 questions, whose word is first with probability p and second to fifth with p / 4 together."""
    rng = np.random.default_rng(0)
    of_rank = np.array([1 - p - p / 4, p, *[p / 16] * 4])
    reciprocal = np.array([0, 1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    covered = {"accuracy": 0, "accuracy, bootstrap": 0, "mean_reciprocal_rank": 0}
    for ranks in rng.choice(6, size=(2000, 200), p=of_rank):
        low, high = metric.wilson_interval(np.mean(ranks == 1), 200)
        covered["accuracy"] += low <= p <= high
        low, high = metric.bootstrap_interval((ranks == 1).astype(float), n_resamples=1000)
        covered["accuracy, bootstrap"] += low <= p <= high
        low, high = metric.bootstrap_interval(reciprocal[ranks], n_resamples=1000)
        covered["mean_reciprocal_rank"] += low <= of_rank @ reciprocal <= high
    assert all(0.92 <= count / 2000 <= 0.98 for count in covered.values()), covered


def test_fifty_thousand_questions():
    rng = np.random.default_rng(0)
    letters = np.array(list("אבגדהוזחטיכלמנסעפצקרשת"))
    vocabulary = ["".join(rng.choice(letters, size=size)) for size in rng.integers(2, 9, size=5000)]
    references = rng.choice(vocabulary, size=50_000)
    predictions = rng.choice(vocabulary, size=(50_000, 5))
    results = compute(predictions.tolist(), references.tolist())
    found = predictions == references[:, None]
    assert results["n"] == 50_000
    assert results["accuracy"] == found[:, 0].mean() > 0
    assert results["top5_accuracy"] == found.any(axis=1).mean()


@pytest.mark.parametrize(
    "predictions, references, options, error, message",
    [
        ([], [], {}, ValueError, "no questions"),
        ([["א"]], ["א", "ב"], {}, ValueError, "1 predictions and 2 references"),
        ([["א"]], ["א"], {"log_probabilities": [-1.0, -1.0]}, ValueError, "2 log_probabilities and 1 references"),
        ([["א"], [1]], ["א", "ב"], {}, TypeError, r"predictions\[1\] is \[1\]"),
        ([["א"], None], ["א", "ב"], {}, TypeError, r"predictions\[1\] is None"),
        ([["א"]], ["..."], {}, ValueError, r"references\[0\] is '...'"),
        ([["א"]], [" "], {"protocol": "paper"}, ValueError, r"references\[0\] is ' '"),
        ([["א"]], ["א"], {"protocol": "exact"}, ValueError, "'clean', 'paper', got 'exact'"),
        ([["א"]], ["א"], {"log_probabilities": [0.3]}, ValueError, r"log_probabilities\[0\] is 0.3"),
        ([["א"]], ["א"], {"confidence": 95}, ValueError, "between 0 and 1, got 95"),
        ([["א"]], ["א"], {"n_resamples": 0}, ValueError, "at least 1, got 0"),
    ],
)
def test_bad_input(predictions, references, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        compute(predictions, references, **options)
    with pytest.raises(error, match=message):
        metric.MissingWordAccuracy(cache_dir=str(tmp_path)).compute(
            predictions=predictions, references=references, **options
        )


def test_missing_words_must_be_text():
    with pytest.raises(TypeError, match=r"references\[0\] is 3"):
        compute([["א"]], [3])


def test_module_takes_lists_single_words_and_batches(tmp_path):
    module = metric.MissingWordAccuracy(cache_dir=str(tmp_path))
    assert module.compute(predictions=[["ספר"], "שולחן"], references=["ספר", "שולחן"])["accuracy"] == 1
    module.add(prediction=["ספר"], reference="ספר")
    module.add_batch(predictions=[["עט"], []], references=["ספר", "ספר"])
    results = module.compute(log_probabilities=[-1.0, -2.0, -3.0], confidence=0.9)
    assert results == compute([["ספר"], ["עט"], []], ["ספר"] * 3, log_probabilities=[-1.0, -2.0, -3.0], confidence=0.9)


def test_loaded_offline_it_gives_the_same_figures_and_its_examples_are_true(tmp_path):
    child = """
import doctest, json, socket, sys

def refuse(*args):
    raise AssertionError("reached for the network")

socket.socket.connect = socket.getaddrinfo = refuse
import evaluate

module = evaluate.load("hub_cards/metrics/missing_word_accuracy")
assert not any(name.split(".")[0] == "tall_hf" for name in sys.modules)
examples = doctest.DocTestParser().get_doctest(module.inputs_description, {}, "examples", None, 0)
results = doctest.DocTestRunner().run(examples)
assert (results.failed, results.attempted) == (0, 6), results
print(json.dumps(module.compute(**json.load(sys.stdin))))
"""
    questions = {
        "predictions": [["ספר", "עט"], ["הבית", "בית"], []],
        "references": ["ספר", "בית", "ילד"],
        "log_probabilities": [-0.5, -1.5, -4.0],
    }
    answer = subprocess.run(
        [sys.executable, "-c", child],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        input=json.dumps(questions),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == json.loads(json.dumps(compute(**questions)))


def test_space_has_what_it_needs():
    header = (FOLDER / "README.md").read_text(encoding="utf-8").split("---")[1]
    for line in ("sdk: gradio", "app_file: app.py", "- evaluate", "- metric"):
        assert line in header
    assert (FOLDER / "app.py").is_file()
    requirements = (FOLDER / "requirements.txt").read_text()
    assert all(name in requirements for name in ("datasets", "evaluate", "numpy", "sacrebleu"))
