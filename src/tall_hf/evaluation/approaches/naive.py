"""Naive: the language model continues the translation by a word, all is translated back, and the last word counts."""

from collections.abc import Callable, Sequence
from typing import Any

from tall_hf.data.words import split_last_word, split_name
from tall_hf.fingerprints import model_fingerprint

from ..approach import Answer, Approach, Loader, Question
from .back_translation import BackTranslator
from .language_model import LanguageModel


# A translator likes to end what it translates, and no word goes on behind a full stop.
_SENTENCE_END = " .!?…"


class Naive(Approach):
    """Translate, let a language model of the high-resource language add one word, translate back.

    "clean": the language model's most probable whole words, each added to the translation and translated back with the
    translator's own settings; the last words, in that order. "paper": one word of ten sampled tokens. There are no
    probabilities: a word comes back from many words.

    Args:
        load_llm: gives the language model with its head, and its tokenizer; see `model_loader`.
        load_hr_lr: gives the translator back, and its tokenizer.
        name: in the table.
        source_lang: code of the low-resource language, where the translator needs one.
        pivot_lang: code of the high-resource language, likewise.
        split: divides a sentence of the low-resource language into words, as for `read_questions` ("paper" divides at
            spaces).
        num_beams: of the search for the next word; `max(16, 2 * top_k)` when not given.
    """

    reads_translations = True

    def __init__(
        self,
        load_llm: Loader,
        load_hr_lr: Loader,
        name: str = "naive",
        source_lang: str | None = None,
        pivot_lang: str | None = None,
        split: Callable[[str], list[str]] = str.split,
        num_beams: int | None = None,
    ):
        self.name = name
        self.load_llm = load_llm
        self.load_hr_lr = load_hr_lr
        self.source_lang = source_lang
        self.pivot_lang = pivot_lang
        self.split = split
        self.num_beams = num_beams
        self._model: LanguageModel | None = None
        self._back: BackTranslator | None = None

    def settings(self) -> dict[str, Any]:
        return {
            "llm": model_fingerprint(self.model.llm, self.model.tokenizer),
            "hr_lr": self.back.fingerprint(),
            "source_lang": self.source_lang,
            "pivot_lang": self.pivot_lang,
            "split": split_name(self.split),
            "num_beams": self.num_beams,
        }

    @property
    def model(self) -> LanguageModel:
        """What is asked; loaded when it is first needed."""
        if self._model is None:
            self._model = self.load_model()
        return self._model

    def load_model(self) -> LanguageModel:
        return LanguageModel(*self.load_llm(), num_beams=self.num_beams)

    @property
    def back(self) -> BackTranslator:
        """The translator back; loaded when it is first needed."""
        if self._back is None:
            self._back = BackTranslator(*self.load_hr_lr(), self.source_lang, self.pivot_lang)
        return self._back

    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        texts = [question.translation for question in questions]
        if protocol == "paper":
            added = [[word] for word in self.model.sample_words(texts)]
        else:
            texts = [open_end(text) for text in texts]
            added = [[word for word, _ in words] for words in self.model.next_words(texts, top_k)]
        continued = [[f"{text} {word}".strip() for word in words] for text, words in zip(texts, added, strict=True)]
        returned = iter(self.back([english for row in continued for english in row]))
        answers = []
        for row in continued:
            found = {}  # each word once, with the sentence that it came from first
            for english in row:
                found.setdefault(self._last_word(next(returned), protocol), english)
            found.pop("", None)
            answers.append(Answer(tuple(found), translation=next(iter(found.values()), None)))
        return answers

    def close(self):
        self._model = self._back = None

    def _last_word(self, text, protocol):
        if protocol == "paper":
            return next(reversed(text.split()), "").strip(".,")
        return split_last_word(text, self.split)[1]


def open_end(translation: str) -> str:
    """The translation without the punctuation that a translator ends a sentence with, finished or not."""
    return translation.rstrip(_SENTENCE_END)
