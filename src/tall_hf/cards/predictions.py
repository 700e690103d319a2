"""What a model really says of a few sentences that it was not trained on, for a card to show."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from tall_hf.data.prepare import load_translations
from tall_hf.data.words import normalize
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor

from .evidence import Evaluation


EXAMPLES = 4
TOP_K = 5
_WORTH_A_LINE = 0.0005


@dataclass(frozen=True)
class Prediction:
    """What a TALL said of one sentence.

    Attributes:
        text: the unfinished sentence.
        missing_word: how it went on; None where nobody says.
        translation: what the language model read.
        words: next words with their probabilities, the best first.
        completion: the text as the model continued it.
    """

    text: str
    missing_word: str | None
    translation: str
    words: list[tuple[str, float]]
    completion: str

    @property
    def added(self) -> str:
        """What the model went on with."""
        return self.completion.removeprefix(self.text.rstrip()).strip()

    @property
    def likely_words(self) -> list[tuple[str, float]]:
        """The best word, and the others that are worth a line."""
        return [*self.words[:1], *(pair for pair in self.words[1:] if pair[1] >= _WORTH_A_LINE)]


def held_out_sentences(
    evaluation: Evaluation | None, dataset: str | os.PathLike | None, count: int = EXAMPLES
) -> list[tuple[str, str]]:
    """A few sentences that the model did not learn, each as its beginning and its missing word.

    They are those of the smallest hashes, so that nobody chooses the ones that went well: of the evaluation, or else of the
    preparation's validation sentences; none if there is neither.
    """
    if evaluation is not None:
        pairs = [
            (row["sentence"].removesuffix(row["missing_word"]).rstrip(), row["missing_word"])
            for row in evaluation.sentences
            if row["sentence"].endswith(row["missing_word"])
        ]
    elif dataset is not None and "validation" in (splits := load_translations(dataset)):
        rows = splits["validation"].select_columns(["truncated", "missing_word"])
        pairs = [(row["truncated"], row["missing_word"]) for row in rows]
    else:
        pairs = []
    pairs = dict.fromkeys(pair for pair in pairs if pair[0])
    return sorted(pairs, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())[:count]


def predict(
    model: TALLForCausalLM, processor: TALLProcessor, sentences: Sequence[tuple[str, str | None]]
) -> list[Prediction]:
    """Ask the model to go on with each beginning of a sentence, by `next_words` and by `complete`.

    Args:
        model: a TALL.
        processor: its processor.
        sentences: beginnings, each with the word that is missing, or None where nobody knows it.

    Raises:
        ValueError: a beginning has no text.
    """
    if not sentences:
        return []
    texts = [normalize(text) for text, _ in sentences]
    if empty := [text for (text, _), kept in zip(sentences, texts, strict=True) if not kept]:
        raise ValueError(f"The example {empty[0]!r} has no text; give the beginning of a sentence.")
    translations = model.translate(texts, processor)
    words = model.next_words(texts, processor, top_k=TOP_K, translations=translations)
    completions = model.complete(texts, processor, translations=translations)
    return [
        Prediction(text, missing_word, translation, found, completion)
        for (_, missing_word), text, translation, found, completion in zip(
            sentences, texts, translations, words, completions, strict=True
        )
    ]
