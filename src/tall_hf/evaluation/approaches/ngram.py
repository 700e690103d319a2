"""NGram: the next word by the words before it, counted in the training text and smoothed after Kneser and Ney."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tall_hf.data.words import normalize, words_of

from ..approach import Answer, Approach, Question, TrainingText, check_training
from ..fingerprint import split_name
from ..kneser_ney import KneserNey, Spelling


# The order is chosen on so many sentences at most; the first ones, which stand in no order that matters.
_MAX_VALIDATION = 5000


class NGram(Approach):
    """Interpolated modified Kneser-Ney on whole sentences, up to and with the missing word.

    Words are what stands between spaces, without the punctuation around them; one that was never seen gets its probability
    from its letters (`Spelling`). Of the orders the one is taken that gives the missing words of the validation text the
    highest probability; without a validation text, the last one.

    Args:
        orders: lengths of the n-grams to choose from; 3 is a trigram.
        split: divides a sentence into words, for scripts without spaces.
    """

    name = "ngram"

    def __init__(self, orders: Sequence[int] = (2, 3, 4), split: Callable[[str], list[str]] = str.split) -> None:
        if not orders or min(orders) < 1:
            raise ValueError(f"`orders` must be one or more numbers of at least 1, got {orders!r}.")
        self.orders, self.split = tuple(orders), split
        self._model = None

    def settings(self) -> dict[str, Any]:
        return {"orders": list(self.orders), "split": split_name(self.split)}

    def fit(self, training: TrainingText | None, folder: Path) -> dict[str, Any]:
        check_training(training, self.name)
        start = time.monotonic()
        sentences = [words_of(text, self.split) for batch in training.train.iter(1000) for text in batch["sentence"]]
        counts = Counter(word for sentence in sentences for word in sentence)
        spelling = Spelling(counts)
        losses, best = {}, None
        for order in self.orders:
            model = KneserNey(sentences, order, spelling.log_probabilities)
            if training.validation is not None and len(self.orders) > 1:
                rows = training.validation[:_MAX_VALIDATION]
                losses[order] = -float(self._score(model, rows["truncated"], rows["missing_word"]).mean())
            if best is None or losses.get(order, 0.0) <= losses.get(best, 0.0):
                self._model, best = model, order
        return {
            "order": best,
            "validation_perplexity": {str(order): float(np.exp(loss)) for order, loss in losses.items()},
            "sentences": len(sentences),
            "words": len(counts),
            "seconds": time.monotonic() - start,
        }

    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
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
