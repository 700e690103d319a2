"""KneserNey against nltk's and against numbers by hand; sums over all symbols; Spelling."""

import itertools
import math
import random

import numpy as np
import pytest

from tall_hf.evaluation import kneser_ney
from tall_hf.evaluation.kneser_ney import KneserNey, Spelling, estimate_discounts


WORDS = [f"w{i}" for i in range(12)]


def uniform(size):
    return lambda symbols: np.full(len(symbols), -math.log(size))


@pytest.fixture
def sentences():
    rng = random.Random(0)
    weights = [1 / (i + 1) for i in range(12)]
    return [rng.choices(WORDS, weights, k=rng.randint(1, 6)) for _ in range(60)]


def all_contexts(order):
    return [list(words) for n in range(order) for words in itertools.product([*WORDS[:8], "new"], repeat=n)]


@pytest.mark.parametrize("order", [2, 3])
def test_equals_nltk(sentences, order, monkeypatch):
    from nltk.lm import KneserNeyInterpolated

    # nltk takes one discount of every order but the lowest, which it does not smooth.
    discounts = itertools.chain([(0.3,) * 3] * (order - 1), [(0.0,) * 3])
    monkeypatch.setattr(kneser_ney, "estimate_discounts", lambda counts: next(discounts))
    ours = KneserNey(sentences, order, uniform(1000))
    theirs = KneserNeyInterpolated(order, discount=0.3)
    grams = []
    for sentence in sentences:
        padded = ["<s>"] * (order - 1) + sentence
        # Symbols are predicted, their beginning is not: only n-grams that end in one.
        grams.append(
            [tuple(padded[i - n + 1 : i + 1]) for i in range(order - 1, len(padded)) for n in range(1, order + 1)]
        )
    theirs.fit(grams, [*WORDS, "<s>"])
    for context in all_contexts(order):
        padded = ["<s>"] * (order - 1 - len(context)) + context
        expected = [theirs.score(word, padded) for word in WORDS]
        found = np.exp(ours.log_probabilities([context] * len(WORDS), WORDS))
        assert found == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    # Order 2 on "a b", "a b", "a c": behind "a", b twice and c once; discounts are estimated from counts 3, 2 and 1.
    model = KneserNey([["a", "b"], ["a", "b"], ["a", "c"]], 2, uniform(10))
    # n1 = n2 = n3 = 1, n4 = 0: Y = 1/3, D1 = 1/3, D2 = 2 - 3/3 = 1, and D3 = 3 is no discount, so Y.
    assert estimate_discounts(np.array([3, 2, 1])) == pytest.approx((1 / 3, 1, 1 / 3))
    # Distinct symbols to the left: a 1, b 1, c 1; no twos, so 1/2 is taken of each.
    lowest = (1 - 0.5) / 3 + 0.5 * 0.1
    backoff = (1 + 1 / 3) / 3
    expected = {
        "b": (2 - 1) / 3 + backoff * lowest,
        "c": (1 - 1 / 3) / 3 + backoff * lowest,
        "a": backoff * lowest,
        "new": backoff * 0.5 * 0.1,
    }
    found = model.log_probabilities([["a"]] * 4, list(expected))
    assert np.exp(found) == pytest.approx(list(expected.values()))
    assert model.most_probable([["a"], [], ["new"]], 3) == [["b", "c", "a"], ["a", "b", "c"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    "counts, expected",
    [
        ([1] * 40 + [2] * 10 + [3] * 5 + [4] * 2, (2 / 3, 2 - 2 * 5 / 10, 3 - 4 * (2 / 3) * 2 / 5)),
        ([1, 1, 5], (0.5, 0.5, 0.5)),  # no twos
        ([7, 9], (0.5, 0.5, 0.5)),
        ([1, 2, 2, 3, 3, 3, 3, 3, 3], (0.2, 0.2, 0.2)),  # 2 - 3 * 0.2 * 6 / 2 = 0.2; no fours
    ],
)
def test_discounts(counts, expected):
    assert estimate_discounts(np.array(counts)) == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one(sentences, order):
    # The base gives the known words half, and another word the rest.
    spread = {word: 0.5 / len(WORDS) for word in WORDS} | {"other": 0.5}
    model = KneserNey(sentences, order, lambda symbols: np.log([spread[symbol] for symbol in symbols]))
    assert set(model.ids) == set(WORDS)
    contexts = all_contexts(min(order, 3)) + [["w0"] * 5, ["w1", "new", "w0"]]
    for context in contexts:
        found = np.exp(model.log_probabilities([context] * len(spread), list(spread)))
        assert found.sum() == pytest.approx(1)
        assert found.min() > 0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("top_k", [1, 4, 50])
def test_the_most_probable_are_those_of_highest_probability(sentences, order, top_k):
    model = KneserNey(sentences, order, uniform(100))
    contexts = all_contexts(min(order, 3)) + [["w0", "w1", "w0", "w0"]]
    for context, found in zip(contexts, model.most_probable(contexts, top_k), strict=True):
        scores = dict(zip(WORDS, model.log_probabilities([context] * len(WORDS), WORDS), strict=True))
        assert len(found) == len(set(found)) == min(top_k, len(WORDS))
        assert [scores[word] for word in found] == pytest.approx(sorted(scores.values(), reverse=True)[:top_k])


def test_weighed_is_the_conditional_probability(sentences):
    """By the definition: over all symbols, known and unknown, weights times probabilities, divided by their sum."""
    unseen = ["new", "newer"]
    model = KneserNey(sentences, 3, uniform(len(WORDS) + len(unseen)))
    assert set(model.ids) == set(WORDS)
    weights, other = {word: 0.05 * (i + 1) for i, word in enumerate(WORDS)}, 0.4
    weighed = model.weighed(weights, other)
    everything = [*WORDS, *unseen]
    for context in ([], ["w0"], ["w1", "w0"], ["new"], ["w7", "w9"]):
        plain = np.exp(model.log_probabilities([context] * len(everything), everything))
        expected = plain * [weights.get(word, other) for word in everything]
        expected /= expected.sum()
        found = np.exp(weighed.log_probabilities([context] * len(everything), everything))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert weighed.most_probable([context], 4)[0] == [WORDS[i] for i in np.argsort(-expected[:12])[:4]]
    same = model.weighed(dict.fromkeys(WORDS, 0.3), 0.3)
    np.testing.assert_allclose(
        same.log_probabilities([["w0"]] * 12, WORDS), model.log_probabilities([["w0"]] * 12, WORDS), rtol=1e-12
    )


def test_a_context_is_a_beginning():
    sentences = [["a", "x"]] * 3 + [["b", "a", "y"]] * 3
    model = KneserNey(sentences, 3, uniform(10))
    assert model.most_probable([["a"], ["b", "a"]], 1) == [["x"], ["y"]]


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="no symbol"):
        KneserNey([[], []], 2, uniform(2))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        KneserNey([["a"]], 0, uniform(2))


def test_spelling_sums_to_one():
    counts = {"".join(letters): 1 for n in range(1, 6) for letters in itertools.product("ab", repeat=n)}
    spelling = Spelling({**counts, "ccc": 9}, order=2)
    # Nearly all words that there are consist of a and b, and a word of twice the length is rare.
    words = ["".join(letters) for n in range(1, 15) for letters in itertools.product("ab", repeat=n)]
    assert 0.85 < np.exp(spelling.log_probabilities(words)).sum() < 1
    # Behind any beginning both letters, the end, and all other letters of Unicode sum to 1. What occurs more than once
    # is not learned from, so c is one of those.
    letters = spelling._letters
    for before in ("", "a", "b", "ab", "c"):
        known = np.exp(letters.log_probabilities([before] * 3, ["a", "b", ""])).sum()
        [x, c] = np.exp(letters.log_probabilities([before] * 2, ["x", "c"]))
        assert known + (0x110000 - 2) * x == pytest.approx(1)
        assert x == pytest.approx(c)
    # The empty word is none, and the others share its probability.
    [a, end] = letters.log_probabilities(["", "a"], ["a", ""])
    empty = math.exp(letters.log_probabilities([""], [""])[0])
    assert math.exp(spelling.log_probabilities(["a"])[0]) == pytest.approx(math.exp(a + end) / (1 - empty))


def test_spelling_prefers_what_looks_like_the_words():
    rng = random.Random(0)
    counts = {"".join(rng.choices("אבגדהו", k=rng.randint(2, 6))): 1 for _ in range(200)}
    likely, foreign, long = Spelling(counts).log_probabilities(["אבגד", "abcd", "א" * 60])
    assert likely > foreign + 20
    assert likely > long > -math.inf


def test_spelling_of_words_that_all_occur_often():
    [score] = Spelling({"אב": 5, "גד": 7}).log_probabilities(["אד"])
    assert -math.inf < score < 0
