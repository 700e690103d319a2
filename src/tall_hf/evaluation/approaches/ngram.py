"""NGram: the next word by the words before it, counted in the training text and smoothed after Kneser and Ney."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tall_hf.data.words import normalize, split_name, words_of

from ..approach import Answer, Approach, Question, TrainingText, check_fitted, check_training, read_column
from ..kneser_ney import KneserNey, Spelling


# The order is chosen on so many sentences at most; the first ones, which stand in no order that matters.
_MAX_VALIDATION = 5000


class NGram(Approach):
    """Interpolated modified Kneser-Ney on whole sentences, up to and with the missing word.

    Words are what stands between spaces, without the punctuation around them; one that was never seen gets its probability
    from its letters (`Spelling`). What is asked for is a last word, so each word's probability is multiplied by the share
    of its occurrences that end a sentence, and all are divided by their sum; the share is drawn towards that of words
    that occur once, as if by so many further occurrences. Of the orders and these numbers the pair is taken that gives
    the missing words of the validation text the highest probability; without a validation text, the last of each.

    Args:
        orders: lengths of the n-grams to choose from; 3 is a trigram.
        end_strengths: numbers of further occurrences to choose from; None leaves the last word's place out of account.
        split: divides a sentence into words, for scripts without spaces.
    """

    name = "ngram"

    def __init__(
        self,
        orders: Sequence[int] = (2, 3, 4),
        end_strengths: Sequence[float | None] = (None, 20.0, 5.0, 1.0),
        split: Callable[[str], list[str]] = str.split,
    ) -> None:
        if not orders or min(orders) < 1:
            raise ValueError(f"`orders` must be one or more numbers of at least 1, got {orders!r}.")
        if not end_strengths or any(strength is not None and strength <= 0 for strength in end_strengths):
            raise ValueError(f"`end_strengths` must be one or more numbers above 0, or None, got {end_strengths!r}.")
        self.orders, self.end_strengths, self.split = tuple(orders), tuple(end_strengths), split
        self._model = None

    def settings(self) -> dict[str, Any]:
        return {
            "orders": list(self.orders),
            "end_strengths": list(self.end_strengths),
            "split": split_name(self.split),
        }

    def fit(self, training: TrainingText | None, folder: Path) -> dict[str, Any]:
        check_training(training, self.name)
        start = time.monotonic()
        sentences = [words_of(text, self.split) for text in read_column(training.train, "sentence")]
        counts = Counter(word for sentence in sentences for word in sentence)
        ends = Counter(sentence[-1] for sentence in sentences if sentence)
        spelling = Spelling(counts)
        rows = None if training.validation is None else training.validation[:_MAX_VALIDATION]
        trials, best = [], None
        for order in self.orders:
            plain = KneserNey(sentences, order, spelling.log_probabilities)
            for strength in self.end_strengths:
                model = plain if strength is None else plain.weighed(*end_shares(counts, ends, strength))
                loss = (
                    0.0 if rows is None else -float(self._score(model, rows["truncated"], rows["missing_word"]).mean())
                )
                trials.append({"order": order, "end_strength": strength, "validation_perplexity": float(np.exp(loss))})
                if best is None or loss <= best:
                    self._model, best, chosen = model, loss, trials[-1]
        return {
            **chosen,
            "validation_perplexity": None if rows is None else chosen["validation_perplexity"],
            "trials": trials if rows is not None else [],
            "sentences": len(sentences),
            "words": len(counts),
            "seconds": time.monotonic() - start,
        }

    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        check_fitted(self._model is not None, self.name)
        truncated = [question.truncated for question in questions]
        found = self._model.most_probable([self._words(text) for text in truncated], top_k)
        if protocol == "paper":
            return [Answer(tuple(words)) for words in found]
        scores = self._score(self._model, truncated, [question.missing_word for question in questions])
        return [Answer(tuple(words), float(score)) for words, score in zip(found, scores, strict=True)]

    def _score(self, model, truncated, missing_words):
        return model.log_probabilities([self._words(text) for text in truncated], missing_words)

    def _words(self, text):
        return words_of(normalize(text), self.split)


def end_shares(counts: Counter, ends: Counter, strength: float) -> tuple[dict[str, float], float]:
    """How often each word ends a sentence when it occurs, and how often a word does that was never seen.

    Args:
        counts: occurrences of each word.
        ends: of these, those at the end of a sentence.
        strength: further occurrences that a word is given, of which the share of words that occur once is at the end.
    """
    once = [word for word, count in counts.items() if count == 1]
    # With one success and one failure more, so that it is neither 0 nor 1 in a small text.
    other = (sum(ends[word] for word in once) + 1) / (len(once) + 2)
    return {word: (ends[word] + strength * other) / (count + strength) for word, count in counts.items()}, other
