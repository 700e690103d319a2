"""Scores of hand-made answers: comparisons, and questions divided by group, frequency, overlap and length."""

import handmade
import numpy as np
import pytest
from datasets import Dataset

from tall_hf.evaluation.approach import Question, TrainingText
from tall_hf.evaluation.scores import (
    compute_scores,
    running_accuracy,
    split_by_frequency,
    split_by_length,
    split_by_overlap,
)


def scores(**settings):
    return {entry.run.approach: entry for entry in compute_scores(handmade.results(), "clean", **settings)}


def test_a_run_is_scored_and_compared_with_the_reference():
    found = scores()
    assert found["tall"].metrics["accuracy"] == 0.8 and found["ngram"].metrics["accuracy"] == 0.2
    assert found["tall"].ranks.tolist() == [1] * 8 + [2, 0]
    assert found["tall"].comparison is None
    comparison = found["ngram"].comparison
    assert comparison.difference == pytest.approx(-0.6)
    # Seven questions are TALL's alone, one is the other's: 2 (1 + 8) / 2^8.
    assert comparison.p_value == pytest.approx(18 / 256)
    assert comparison.adjusted_p_value == comparison.p_value  # one comparison only
    assert comparison.interval[0] < -0.6 < comparison.interval[1] <= 0
    assert found["broken"].metrics is None and found["broken"].run.error


def test_without_the_reference_nothing_is_compared():
    for reference in ("absent", "broken"):
        assert all(entry.comparison is None for entry in scores(reference=reference).values())


def test_groups_are_scored_apart():
    by_group = scores()["ngram"].splits["group"]
    assert {name: (part["accuracy"], part["n"]) for name, part in by_group.items()} == {
        "even": (0.2, 5),
        "odd": (0.2, 5),
    }
    tall = scores()["tall"].splits["group"]
    assert (tall["even"]["accuracy"], tall["odd"]["accuracy"]) == (0.8, 0.8)
    # Wilson's interval of 4 of 5.
    assert tall["even"]["accuracy_interval"] == pytest.approx((0.3755, 0.9638), abs=1e-4)
    assert set(tall["even"]) == {"accuracy", "accuracy_interval", "n"}


def test_running_accuracy_is_that_of_the_first_questions():
    assert running_accuracy(np.array([True, False, False, True])).tolist() == [1, 1 / 2, 1 / 3, 1 / 2]


def test_frequencies_are_counted_in_whole_words_of_the_training_sentences():
    split = split_by_frequency(handmade.QUESTIONS, handmade.training())
    assert {name: int(mask.sum()) for name, mask in split.masks().items()} == {"0": 8, "1–9": 1, "10–99": 1}
    assert split.parts[:2].tolist() == ["1–9", "10–99"]
    by_frequency = scores(training=handmade.training())["ngram"].splits["frequency"]
    assert {name: part["accuracy"] for name, part in by_frequency.items()} == {"0": 1 / 8, "1–9": 1, "10–99": 0}


def test_a_missing_word_is_looked_up_without_the_punctuation_around_it():
    asked = [Question("יש כאן", '"סוף1".')]
    assert split_by_frequency(asked, handmade.training()).parts.tolist() == ["10–99"]


def test_sentences_that_share_seven_words_with_the_training_text_are_counted_apart():
    ten = ["אחת", "שתיים", "שלוש", "ארבע", "חמש", "שש", "שבע", "שמונה", "תשע", "עשר"]
    training = TrainingText(
        Dataset.from_dict({"sentence": [" ".join(ten), "קצר מאוד"]}),
        Dataset.from_dict({"sentence": ["עוד משפט שיש בו יותר משש מילים"]}),
        "f",
    )
    asked = [
        Question(" ".join(ten[2:8]), f"{ten[8]}."),  # seven of them, the missing one and its full stop included
        Question(" ".join(ten[2:8]), "אחרת"),
        Question("קצר", "מאוד"),  # has no seven, and stands there whole
        Question("ועוד משפט שיש בו יותר משש", "מילים"),
        Question("הנה עוד משפט שיש בו יותר משש", "מילים"),  # of the validation text
    ]
    split = split_by_overlap(asked, training)
    assert split.parts.tolist() == ["some", "none", "some", "none", "some"] and split.names == ["none", "some"]
    assert split_by_overlap(asked[1:2], training) is None
    # Under "paper" a question keeps its vowel points.
    pointed = [Question(" ".join(ten[2:8]).replace("ש", "שׁ"), ten[8])]
    assert split_by_overlap(pointed, training) is None
    assert split_by_overlap(pointed, training, strip_niqqud=True).parts.tolist() == ["some"]
    seen = TrainingText(Dataset.from_dict({"sentence": [handmade.QUESTIONS[0].sentence]}), None, "f")
    by_overlap = scores(training=seen)["ngram"].splits["overlap"]
    assert {name: (part["accuracy"], part["n"]) for name, part in by_overlap.items()} == {
        "none": (1 / 9, 9),
        "some": (1, 1),
    }


def test_lengths_make_parts_of_about_as_many_questions_each_length_in_one():
    assert [len(question.sentence.split()) for question in handmade.QUESTIONS] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    split = split_by_length(handmade.QUESTIONS)
    assert split.names == ["2", "3", "4", "5", "6"]
    many = [Question("מילה " * length, "סוף") for length in range(1, 101)]
    split = split_by_length(many)
    assert {name: int(mask.sum()) for name, mask in split.masks().items()} == {
        "2–21": 20,
        "22–41": 20,
        "42–61": 20,
        "62–81": 20,
        "82–101": 20,
    }
    assert split_by_length(many[:1]).names == ["2"]
