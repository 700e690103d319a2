"""Majority: the most frequent last words, in order, and probabilities that sum to 1 over every word there is."""

import math

import numpy as np
import pytest
from datasets import Dataset

from tall_hf.evaluation.approach import Question, TrainingText
from tall_hf.evaluation.approaches.majority import Majority


WORDS = ["ים"] * 4 + ["בית"] * 3 + ["ספר", "ספר", "חול", "אור"]


@pytest.fixture
def majority(tmp_path):
    approach = Majority()
    training = TrainingText(Dataset.from_list([{"missing_word": word} for word in WORDS]), None, "abc")
    assert approach.fit(training, tmp_path) == {"sentences": 11, "words": 5}
    return approach


def probability(majority, word):
    [answer] = majority.answer([Question("דנה גרה", word)], "clean")
    return math.exp(answer.log_probability)


def test_the_most_frequent_words(majority):
    questions = [Question("דנה גרה", "ים"), Question("", "אחר")]
    for protocol in majority.protocols:
        answers = majority.answer(questions, protocol, top_k=3)
        assert [answer.words for answer in answers] == [("ים", "בית", "ספר")] * 2
    assert [answer.log_probability for answer in majority.answer(questions, "paper")] == [None, None]
    # All that were seen, and equals in the order they were seen.
    assert majority.answer(questions[:1], "clean", top_k=9)[0].words == ("ים", "בית", "ספר", "חול", "אור")


def test_probabilities(majority):
    # Counts 4, 3, 2, 1, 1: n1 = 2, n2 = n3 = n4 = 1, so Y = 1/2, D1 = 1/2, D2 = 1/2, D3 = 3 - 4 / 2 = 1.
    left = (1 + 1 + 0.5 + 0.5 + 0.5) / 11
    spelled = np.exp(majority._model.base(["ים", "ספר", "שולחן"]))
    assert probability(majority, "ים") == pytest.approx(3 / 11 + left * spelled[0])
    assert probability(majority, "ספר") == pytest.approx(1.5 / 11 + left * spelled[1])
    assert 0 < probability(majority, "שולחן") == pytest.approx(left * spelled[2])
    known = sorted(set(WORDS))
    unknown_mass = left * (1 - np.exp(majority._model.base(known)).sum())
    assert sum(probability(majority, word) for word in known) + unknown_mass == pytest.approx(1)


def test_without_text(tmp_path):
    with pytest.raises(ValueError, match="run `tall prepare TEXT"):
        Majority().fit(None, tmp_path)
