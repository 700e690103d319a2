"""Soft prompt: naive translation, with a learned prompt before the translation that steers the word towards the right one."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from safetensors.torch import load_file
from torch import nn

from tall_hf.data.words import strip_punctuation
from tall_hf.files import read_json, write_json

from ..approach import Answer, Loader, Question, TrainingText, check_fitted, check_training
from .causal_training import MODEL_FOLDER, TuningRecipe, train_causal
from .language_model import LanguageModel
from .lora import without_base_name
from .naive import Naive, open_end


# A prompt is a few vectors of the size of embeddings: it takes far larger steps than weights.
PROMPT_RECIPE = TuningRecipe(learning_rates=(1e-3, 1e-2, 1e-1), losses=("last_word",))
_TARGETS = "targets"
_SENTENCES_A_FILE = 64
_GUESSES = 5


class SoftPrompt(Naive):
    """Prompt tuning of the language model on translations; then naive translation with that prompt.

    The word to learn for a sentence is a word of the high-resource language which, added to the translation of the
    truncated sentence and translated back, gives the missing word. Tried are, in this order, the words that the
    translation of the whole sentence has beyond that of the truncated one, the last first, and the language model's own
    five most probable next words. A sentence for which none comes back right is dropped, and counted.

    Args:
        load_llm, load_hr_lr: as for `Naive`.
        load_tall: gives a TALL and its processor, whose LR→HR translator translates the training sentences.
        name: in the table.
        prompt_length: vectors that stand before a text.
        recipe: what to try and how long to train; `PROMPT_RECIPE` when not given.
        max_sentences: how many training sentences to look for words for; all when not given.
        options: further arguments of `Naive`.
    """

    def __init__(
        self,
        load_llm: Loader,
        load_hr_lr: Loader,
        load_tall: Loader,
        name: str = "soft_prompt",
        prompt_length: int = 20,
        recipe: TuningRecipe | None = None,
        max_sentences: int | None = 20_000,
        **options,
    ):
        super().__init__(load_llm, load_hr_lr, name, **options)
        self.load_tall = load_tall
        self.prompt_length = prompt_length
        self.recipe = recipe or PROMPT_RECIPE
        self.max_sentences = max_sentences
        self._prompt = None
        self._tall = None

    def settings(self) -> dict[str, Any]:
        own = {"prompt_length": self.prompt_length, "max_sentences": self.max_sentences}
        return {**super().settings(), **own, **self.recipe.to_dict()}

    def fit(self, training: TrainingText | None, folder: Path) -> dict[str, Any]:
        if not importlib.util.find_spec("peft"):  # before what is to be learned is looked for
            raise ImportError("Prompt tuning needs peft, which is not installed: pip install 'tall-hf[train]'.")
        check_training(training, self.name, validation=True)
        self._prompt = None  # targets are looked for without it
        self._model = None
        splits = {
            "train": _first(training.train, self.max_sentences),
            "validation": _first(training.validation, self.recipe.validation_sentences),
        }
        rows = {name: self._targets(split, folder / _TARGETS / name) for name, split in splits.items()}
        for name, split in splits.items():
            if not len(rows[name]):
                raise ValueError(
                    f"For none of {len(split)} {name} sentences does an English word come back as the missing word; a soft "
                    "prompt has nothing to learn. Hand in more sentences, or better translators."
                )
        tokenizer, max_length = self.model.tokenizer, self.model.max_length
        self.close()  # the trainings load their own
        learned = train_causal(
            self._trainable,
            tokenizer,
            rows["train"],
            rows["validation"],
            self.recipe,
            folder,
            max_length and max_length - self.prompt_length,
        )
        self._prompt = load_file(folder / MODEL_FOLDER / "adapter_model.safetensors")["prompt_embeddings"]
        sentences = len(splits["train"])
        return {"sentences": sentences, "without_a_target": sentences - len(rows["train"]), **learned}

    def load_model(self) -> LanguageModel:
        return LanguageModel(*self.load_llm(), prompt=self._prompt, num_beams=self.num_beams)

    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        check_fitted(self._prompt is not None, self.name)
        return super().answer(questions, protocol, top_k)

    def close(self):
        super().close()
        self._tall = None

    def _translate(self, texts: list[str]) -> list[str]:
        if self._tall is None:
            self._tall = self.load_tall()
        model, processor = self._tall
        return model.translate(texts, processor)

    def _trainable(self) -> nn.Module:
        import peft

        llm, _ = self.load_llm()
        config = peft.PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.prompt_length,
            token_dim=llm.get_input_embeddings().weight.shape[1],  # OPT's may differ from its hidden size
            prompt_tuning_init="SAMPLE_VOCAB",
        )
        return without_base_name(peft.get_peft_model(llm, config))

    def _targets(self, split: Dataset, folder: Path) -> Dataset:
        """Rows of `text`, a translation, and the `word` to learn; sentences without one left out.

        They are kept in files, so that an interruption loses one of them.
        """
        rows = {"text": [], "word": []}
        for start in range(0, len(split), _SENTENCES_A_FILE):
            path = folder / f"{start:09}.json"
            batch = split[start : start + _SENTENCES_A_FILE]
            texts = [open_end(translation) for translation in batch["translation"]]
            if not path.exists():
                write_json(path, self._find_targets(batch["sentence"], texts, batch["missing_word"]))
            for text, word in zip(texts, read_json(path), strict=True):
                if word is not None:
                    rows["text"].append(text)
                    rows["word"].append(word)
        return Dataset.from_dict(rows)

    def _find_targets(self, sentences: list[str], texts: list[str], missing_words: list[str]) -> list[str | None]:
        """For each text the first candidate that comes back as the missing word; None if none does."""
        candidates = [
            list(dict.fromkeys([*new_words(whole, text), *(strip_punctuation(word) for word, _ in guesses)]))
            for whole, text, guesses in zip(
                self._translate(sentences), texts, self.model.next_words(texts, _GUESSES), strict=True
            )
        ]
        # A text without words has no place for a prompt's word behind it.
        candidates = [
            [word for word in words if word] if text else [] for words, text in zip(candidates, texts, strict=True)
        ]
        returned = iter(
            self.back([f"{text} {word}" for text, words in zip(texts, candidates, strict=True) for word in words])
        )
        targets = []
        for words, missing_word in zip(candidates, missing_words, strict=True):
            right = [word for word in words if self._last_word(next(returned), "clean") == missing_word]
            targets.append(right[0] if right else None)
        return targets


def new_words(whole: str, text: str) -> list[str]:
    """The words of a whole sentence's translation that that of its beginning has not, the last first."""
    known = set(map(strip_punctuation, text.split()))
    words = (strip_punctuation(word) for word in reversed(whole.split()))
    return [word for word in dict.fromkeys(words) if word and word not in known]


def _first(split: Dataset, count: int | None) -> Dataset:
    return split if count is None else split.select(range(min(len(split), count)))
