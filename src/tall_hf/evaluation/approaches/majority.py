"""Majority: the most frequent last words of the training text, whatever the sentence."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..approach import Answer, Approach, Question, TrainingText, check_fitted, check_training, read_column
from ..kneser_ney import KneserNey, Spelling


class Majority(Approach):
    """Counts the missing words of the training text.

    A word that was never missing gets its probability from its letters (`Spelling`).
    """

    name = "majority"

    def __init__(self) -> None:
        self._words, self._model = [], None

    def fit(self, training: TrainingText | None, folder: Path) -> dict[str, Any]:
        check_training(training, self.name)
        counts = Counter(read_column(training.train, "missing_word"))
        # An n-gram model of order 1 with a word a sequence.
        self._model = KneserNey(([word] for word in counts.elements()), 1, Spelling(counts).log_probabilities)
        self._words = [word for word, _ in counts.most_common()]  # of equals the one seen first
        return {"sentences": counts.total(), "words": len(counts)}

    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        check_fitted(self._words, self.name)
        words = tuple(self._words[:top_k])
        if protocol == "paper":
            return [Answer(words) for _ in questions]
        missing = [question.missing_word for question in questions]
        log_probabilities = self._model.log_probabilities([[]] * len(questions), missing)
        return [Answer(words, float(value)) for value in log_probabilities]
