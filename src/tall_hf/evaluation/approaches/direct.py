"""Direct: the language model by itself continues the text in the low-resource language."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from tall_hf.fingerprints import model_fingerprint

from ..approach import Answer, Approach, Loader, Question
from .language_model import LanguageModel


class Direct(Approach):
    """Ask a causal language model for the next word of the low-resource text.

    "clean": the most probable whole words, and the probability of the missing one. "paper": one word of ten sampled tokens.

    Args:
        load: gives the language model with its head, and its tokenizer; see `model_loader`.
        name: in the table.
        num_beams: how many unfinished words are followed at a time; `max(16, 2 * top_k)` when not given.
    """

    def __init__(self, load: Loader, name: str = "direct", num_beams: int | None = None):
        self.name = name
        self.load = load
        self.num_beams = num_beams
        self._model: LanguageModel | None = None

    def settings(self) -> dict[str, Any]:
        return {"llm": model_fingerprint(self.model.llm, self.model.tokenizer), "num_beams": self.num_beams}

    @property
    def model(self) -> LanguageModel:
        """What is asked; loaded when it is first needed."""
        if self._model is None:
            self._model = LanguageModel(*self.load_model(), num_beams=self.num_beams)
        return self._model

    def load_model(self) -> tuple[PreTrainedModel, Any]:
        """The language model to ask, and its tokenizer."""
        return self.load()

    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        texts = [question.truncated for question in questions]
        if protocol == "paper":
            words = (word.strip(".,") for word in self.model.sample_words(texts))
            return [Answer((word,) if word else ()) for word in words]
        found = self.model.next_words(texts, top_k)
        log_probabilities = self.model.log_probabilities(texts, [question.missing_word for question in questions])
        return [
            Answer(tuple(word for word, _ in words), log_probability)
            for words, log_probability in zip(found, log_probabilities, strict=True)
        ]

    def close(self):
        self._model = None
