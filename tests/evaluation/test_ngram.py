"""NGram: answers that depend on the words before, the order chosen on validation text, proper probabilities."""

import math
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from tall_hf.evaluation.approach import Question, TrainingText
from tall_hf.evaluation.approaches.ngram import NGram, end_shares


def rows(sentences):
    divided = [(sentence, *sentence.rsplit(" ", 1)) for sentence in sentences]
    return Dataset.from_list(
        [dict(zip(("sentence", "truncated", "missing_word"), row, strict=True)) for row in divided]
    )


# Which of the two words comes last is decided by the word before the last but one.
SENTENCES = ["דנה, בוקר אור", "דנה - בוקר אור", "יוסי בוקר טוב", "יוסי בוקר טוב", "יוסי בוקר טוב"]


@pytest.fixture
def training():
    return TrainingText(rows(SENTENCES), rows(SENTENCES[1:3]), "abc")


def test_words_before_decide(training, tmp_path):
    approach = NGram(orders=(3,), end_strengths=(None,))
    learned = approach.fit(training, tmp_path)
    assert (learned["order"], learned["sentences"], learned["words"]) == (3, 5, 5)
    # Punctuation is no word and part of none, neither in training nor in asking. Behind a word that began no sentence
    # lower orders count different beginnings, not occurrences: one for each word, so the first seen comes first.
    questions = [Question('"דנה" - בוקר', "אור"), Question("יוסי בוקר", "טוב"), Question("בוקר", "טוב")]
    for protocol in approach.protocols:
        answers = approach.answer(questions, protocol, top_k=2)
        assert [answer.words for answer in answers] == [("אור", "טוב"), ("טוב", "אור"), ("אור", "טוב")]
    assert [answer.log_probability for answer in answers] == [None] * 3
    clean = approach.answer(questions, "clean", top_k=2)
    assert clean[0].log_probability == pytest.approx(math.log(approach_probability(approach, "דנה בוקר", "אור")))


def approach_probability(approach, truncated, word):
    [answer] = approach.answer([Question(truncated, word)], "clean")
    return math.exp(answer.log_probability)


def test_a_batch_answers_as_each_question_alone(training, tmp_path):
    approach = NGram()
    approach.fit(training, tmp_path)
    questions = [Question("דנה בוקר", "אור"), Question("יוסי", "חדש"), Question("", "יוסי"), Question("מי זה", "טוב")]
    together = approach.answer(questions, "clean")
    assert together == [approach.answer([question], "clean")[0] for question in questions]


@pytest.mark.parametrize("truncated", ["", "דנה", "דנה בוקר", "יוסי בוקר", "מי זה שם"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_known_words_and_the_mass_of_unknown_ones_sum_to_one(training, tmp_path, truncated, order):
    approach = NGram(orders=(order,), end_strengths=(None,))
    approach.fit(training, tmp_path)
    known = ["דנה", "בוקר", "אור", "יוסי", "טוב"]
    unknown = "שולחן"
    total = sum(approach_probability(approach, truncated, word) for word in known)
    # An unknown word has what the counts leave, times its spelling's probability; all of them share that mass.
    spelled = np.exp(approach._model.base([*known, unknown]))
    left = approach_probability(approach, truncated, unknown) / spelled[-1]
    assert total + left * (1 - spelled[:-1].sum()) == pytest.approx(1)
    assert 0 < total < 1


def test_the_order_is_the_one_that_fits_validation(training, tmp_path):
    approach = NGram(orders=(1, 3), end_strengths=(None,))
    learned = approach.fit(training, tmp_path)
    assert learned["order"] == approach._model.order == 3
    first, last = (trial["validation_perplexity"] for trial in learned["trials"])
    assert learned["validation_perplexity"] == last < first
    questions = [Question(row["truncated"], row["missing_word"]) for row in training.validation]
    scores = [answer.log_probability for answer in approach.answer(questions, "clean")]
    assert last == pytest.approx(math.exp(-sum(scores) / len(scores)))
    # Text in which words before mislead.
    misleading = TrainingText(training.train, rows(["דנה בוקר יוסי", "יוסי בוקר דנה"]), "abc")
    assert approach.fit(misleading, tmp_path)["order"] == 1
    without = TrainingText(training.train, None, "abc")
    assert approach.fit(without, tmp_path)["order"] == 3
    assert approach.settings() == {"orders": [1, 3], "end_strengths": [None], "split": None}


def test_words_that_end_sentences_are_preferred(tmp_path):
    """After "בוקר" the commonest word is one that never ends a sentence, and the last word is asked for."""
    names = ["יוסי", "דנה", "מי", "תמר", "נועה"]
    text = [f"{name} בוקר של שמש" for name in names] + [f"{name} בוקר אור" for name in names[:4]]
    training = TrainingText(rows(text), rows(["מי בוקר אור"]), "abc")
    question = [Question("רות בוקר", "אור")]
    learned = [NGram(orders=(2,), end_strengths=strengths) for strengths in ((None,), (1.0,), (None, 1.0))]
    chosen = [approach.fit(training, tmp_path)["end_strength"] for approach in learned]
    assert chosen == [None, 1.0, 1.0]
    assert [approach.answer(question, "clean")[0].words[0] for approach in learned] == ["של", "אור", "אור"]


def test_end_shares_by_hand():
    shares, other = end_shares(Counter({"a": 4, "b": 1, "c": 1}), Counter({"a": 1, "b": 1}), 2.0)
    assert other == pytest.approx((1 + 1) / (2 + 2))  # of the two words that occur once, one ends
    assert shares == pytest.approx({"a": (1 + 2 * 0.5) / 6, "b": (1 + 2 * 0.5) / 3, "c": (0 + 2 * 0.5) / 3})


@pytest.mark.parametrize("wrong", [(), (0.0,), (None, -1.0)])
def test_bad_strengths_are_named(wrong):
    with pytest.raises(ValueError, match="`end_strengths` must be one or more numbers above 0"):
        NGram(end_strengths=wrong)


def test_a_script_without_spaces(tmp_path):
    train = Dataset.from_list([{"sentence": "我爱北京"}, {"sentence": "我爱上海"}, {"sentence": "你爱北京"}])
    approach = NGram(orders=(2,), split=list)
    approach.fit(TrainingText(train, None, "x"), tmp_path)
    assert approach.answer([Question("他爱北", "京")], "clean", top_k=1)[0].words == ("京",)
    assert approach.settings()["split"] == "list"


def test_bad_settings(tmp_path):
    with pytest.raises(ValueError, match="at least 1, got \\(\\)"):
        NGram(orders=())
    with pytest.raises(ValueError, match="run `tall prepare TEXT"):
        NGram().fit(None, tmp_path)
