"""Which approaches there are, what each needs, and how it is made of a TALL, its parts and a training text."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tall_hf import kinds
from tall_hf.loading import Component, load_part, load_tokenizer
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor

from .approach import Approach, Loader, TrainingText, missing_training
from .approaches.causal_training import TuningRecipe
from .approaches.decoder_only import DecoderOnly
from .approaches.direct import Direct
from .approaches.fine_tuned import PAPER_RECIPE, FineTuned
from .approaches.lora import LORA_RECIPE, LoRA
from .approaches.majority import Majority
from .approaches.naive import Naive
from .approaches.ngram import NGram
from .approaches.soft_prompt import PROMPT_RECIPE, SoftPrompt
from .approaches.tall import TALL
from .approaches.translator_only import TranslatorOnly


def model_loader(
    auto_class,
    spec: str | os.PathLike,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    token: str | bool | None = None,
    allow_pickle: bool = False,
) -> Loader:
    """A Loader of a pretrained checkpoint, which reads nothing until it is called.

    Args:
        auto_class: AutoModelForCausalLM, or AutoModelForSeq2SeqLM for a translator.
        spec: a folder, or a Hub id with an optional `@revision`.
        dtype, device: of the model.
        token: for private repositories.
        allow_pickle: accept weights that are only there pickled.
    """

    def load():
        part = Component.resolve(spec, token)
        model = load_part(part, auto_class, dtype, token, allow_pickle)
        return model.to(device).eval(), load_tokenizer(part, token)

    return load


def tall_loader(
    folder: str | os.PathLike,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    token: str | bool | None = None,
) -> Loader:
    """A Loader of a whole TALL and its processor, which reads nothing until it is called.

    Args:
        folder: a folder, or a Hub id.
        dtype, device, token: as for `model_loader`.
    """

    def load():
        model, processor = kinds.TALL.load(folder, dtype=dtype, token=token)
        return model.to(device).eval(), processor

    return load


@dataclass(frozen=True)
class Parts:
    """What approaches are made of; no weights are read until an approach is at work.

    Attributes:
        models: TALLs by name, as folders or Hub ids; the first one's parts are the other approaches'.
        llm, hr_lr: the language model and the translator back; those the first TALL was composed of when None.
        translator_only: a TALL without its LLM.
        training: what approaches learn from.
        budget_steps, budget_batch_size: optimizer steps of each approach that is trained here, and sentences a step; its
            own defaults when None. The published recipe keeps its batch size.
        budget_group_by_length: whether a step has sentences of similar length; the published recipe's never has.
        soft_prompt_sentences: training sentences that the soft prompt looks for words for; its own default when None.
        split: divides a sentence of the low-resource language into words.
        seed: of trainings.
        dtype, device: of all models.
        allow_pickle, token: as for `compose`.
    """

    models: dict[str, str | os.PathLike]
    llm: str | None = None
    hr_lr: str | None = None
    translator_only: str | os.PathLike | None = None
    training: TrainingText | None = None
    budget_steps: int | None = None
    budget_batch_size: int | None = None
    budget_group_by_length: bool = False
    soft_prompt_sentences: int | None = None
    split: Callable[[str], list[str]] = str.split
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    allow_pickle: bool = False
    token: str | bool | None = None

    @property
    def first(self) -> str:
        """The name of the first TALL."""
        return next(iter(self.models))

    @functools.cached_property
    def config(self) -> TALLConfig:
        """The first TALL's."""
        return TALLConfig.from_pretrained(self.models[self.first], token=self.token)

    def part(self, role: str) -> str | None:
        """Folder or Hub id of a part ("llm", "hr_lr"), with its revision; None if nobody says which."""
        if (given := getattr(self, role)) is not None:
            return given
        origin = (self.config.components or {}).get(role, {})
        name, revision = origin.get("name_or_path"), origin.get("revision")
        return f"{name}@{revision}" if revision else name

    def part_loader(self, role: str, dtype: torch.dtype | None = None) -> Loader:
        """A loader of a part, in `self.dtype` unless told otherwise."""
        auto_class = {"llm": AutoModelForCausalLM, "hr_lr": AutoModelForSeq2SeqLM}[role]
        return model_loader(
            auto_class,
            self.part(role),
            dtype=dtype or self.dtype,
            device=self.device,
            token=self.token,
            allow_pickle=self.allow_pickle,
        )

    def tall_loader(self, folder: str | os.PathLike) -> Loader:
        """A loader of a whole TALL."""
        return tall_loader(folder, dtype=self.dtype, device=self.device, token=self.token)

    def languages(self) -> dict[str, str | None]:
        """The language codes that the translators were composed with."""
        processor = TALLProcessor.from_pretrained(self.models[self.first], token=self.token)
        return {"source_lang": processor.source_lang, "pivot_lang": processor.pivot_lang}

    def recipe(self, recipe: TuningRecipe) -> TuningRecipe:
        """A recipe within the budget: the full training takes all its steps, and each trial a quarter of them at most."""
        settings = {"seed": self.seed, "bf16": self.dtype == torch.bfloat16}
        if self.budget_steps is not None:
            settings["max_steps"] = self.budget_steps
            settings["trial_steps"] = max(1, min(recipe.trial_steps, self.budget_steps // 4))
        if recipe is not PAPER_RECIPE:
            settings["group_by_length"] = self.budget_group_by_length
            if self.budget_batch_size is not None:
                settings["batch_size"] = self.budget_batch_size
        return dataclasses.replace(recipe, **settings)

    def trained_parameters(self) -> int:
        """How many parameters the first TALL trains."""
        with torch.device("meta"):
            shape = TALLForCausalLM(self.config)
        return sum(parameter.numel() for parameter in shape.parameters() if parameter.requires_grad)


@dataclass(frozen=True)
class ApproachSpec:
    """An approach in the list.

    Attributes:
        make: makes it, or several, of the parts.
        needs: keys of `_MISSING`: what must be there.
    """

    make: Callable[[Parts], list[Approach]]
    needs: Sequence[str] = ()


def _soft_prompt(parts: Parts) -> list[Approach]:
    loaders = (parts.part_loader("llm"), parts.part_loader("hr_lr"), parts.tall_loader(parts.models[parts.first]))
    options = {"recipe": parts.recipe(PROMPT_RECIPE), "split": parts.split, **parts.languages()}
    if parts.soft_prompt_sentences is not None:
        options["max_sentences"] = parts.soft_prompt_sentences
    return [SoftPrompt(*loaders, **options)]


def _fine_tuned(parts: Parts, name: str, recipe: TuningRecipe) -> list[Approach]:
    # Its weights learn and answer in float32, and start from the checkpoint's own.
    return [FineTuned(parts.part_loader("llm", torch.float32), name, recipe)]


def _fine_tuned_paper(parts: Parts) -> list[Approach]:
    # What bfloat16 computes does not change with updates of 2e-8, so the evaluations could not tell which weights are best.
    return _fine_tuned(parts, "fine_tuned_paper", dataclasses.replace(parts.recipe(PAPER_RECIPE), bf16=False))


def _tall_unblocked(parts: Parts) -> list[Approach]:
    return [
        TALL(parts.tall_loader(folder), f"{name}_unblocked", punctuation_block=0.0)
        for name, folder in parts.models.items()
    ]


# In the order of the table.
APPROACHES: dict[str, ApproachSpec] = {
    "tall": ApproachSpec(
        lambda parts: [TALL(parts.tall_loader(folder), name) for name, folder in parts.models.items()]
    ),
    "tall_unblocked": ApproachSpec(_tall_unblocked),
    "naive": ApproachSpec(
        lambda parts: [
            Naive(parts.part_loader("llm"), parts.part_loader("hr_lr"), split=parts.split, **parts.languages())
        ],
        needs=("llm", "hr_lr"),
    ),
    "direct": ApproachSpec(lambda parts: [Direct(parts.part_loader("llm"))], needs=("llm",)),
    "soft_prompt": ApproachSpec(_soft_prompt, needs=("llm", "hr_lr", "validation", "peft")),
    "fine_tuned_paper": ApproachSpec(_fine_tuned_paper, needs=("llm", "validation")),
    "fine_tuned": ApproachSpec(
        lambda parts: _fine_tuned(parts, "fine_tuned", parts.recipe(TuningRecipe())),
        needs=("llm", "validation"),
    ),
    "lora": ApproachSpec(
        lambda parts: [LoRA(parts.part_loader("llm"), parts.trained_parameters(), recipe=parts.recipe(LORA_RECIPE))],
        needs=("llm", "validation", "peft"),
    ),
    "translator_only": ApproachSpec(
        lambda parts: [TranslatorOnly(parts.tall_loader(parts.translator_only))], needs=("translator_only",)
    ),
    "decoder_only": ApproachSpec(
        lambda parts: [DecoderOnly(parts.part_loader("hr_lr"), source_lang=parts.languages()["source_lang"])],
        needs=("hr_lr",),
    ),
    "ngram": ApproachSpec(lambda parts: [NGram(split=parts.split)], needs=("training",)),
    "majority": ApproachSpec(lambda parts: [Majority()], needs=("training",)),
}


def is_missing_folder(spec: str) -> bool:
    """Whether this can only be a folder, and there is none."""
    return spec.startswith((".", "/", "~")) and not Path(spec).is_dir()


def _part_is_missing(parts: Parts, role: str) -> str | None:
    wanted = {"llm": "the language model with its head", "hr_lr": "the translator back into the language"}[role]
    option = role.replace("_", "-")
    spec = parts.part(role)
    if spec is None:
        return f"the TALL does not say which checkpoint was {wanted}; name it by `--{option}`"
    if is_missing_folder(spec):
        return f"{wanted} is not in {spec} any more, from where the TALL was composed; name it by `--{option}`"
    return None


_NO_TRANSLATOR_ONLY = (
    "it is a TALL without its LLM; run `tall compose` as for the model and with `--leave-out-llm`, `tall prepare` and "
    "`tall train` on the same text, then pass `--translator-only FOLDER`"
)
# Why a need is not met, or None if it is.
_MISSING: dict[str, Callable[[Parts], str | None]] = {
    "llm": lambda parts: _part_is_missing(parts, "llm"),
    "hr_lr": lambda parts: _part_is_missing(parts, "hr_lr"),
    "training": lambda parts: missing_training(parts.training),
    "validation": lambda parts: missing_training(parts.training, validation=True),
    "translator_only": lambda parts: _NO_TRANSLATOR_ONLY if parts.translator_only is None else None,
    "peft": lambda parts: (
        None if importlib.util.find_spec("peft") else "it needs peft; run `pip install 'tall-hf[train]'`"
    ),
}


def build_approaches(
    parts: Parts, names: Sequence[str] | None, protocols: Sequence[str]
) -> tuple[list[Approach], dict[str, str]]:
    """Make approaches by name, or all that have what they need.

    Args:
        parts: what to make them of.
        names: in `APPROACHES`; None for all that can be made.
        protocols: those that are asked for; what takes part in none of them is not made.

    Returns:
        The approaches in the order of `APPROACHES`, and why others were left out, by name.

    Raises:
        ValueError: a name that is not there, one whose needs are not met (the message says what to run), or one that
            takes no part in these protocols.
    """
    if names is not None and (unknown := [name for name in names if name not in APPROACHES]):
        raise ValueError(f"Unknown approach {', '.join(unknown)}; there are {', '.join(APPROACHES)}.")
    approaches, left_out = [], {}
    for name, spec in APPROACHES.items():
        if names is not None and name not in names:
            continue
        reason = next(filter(None, (_MISSING[need](parts) for need in spec.needs)), None)
        if reason is not None:
            if names is not None:
                raise ValueError(f"The approach {name!r} cannot be asked: {reason}.")
            left_out[name] = reason
            continue
        made = spec.make(parts)
        taking_part = [approach for approach in made if set(approach.protocols) & set(protocols)]
        if names is not None and not taking_part:
            raise ValueError(
                f"The approach {name!r} takes part under {', '.join(made[0].protocols)} only, and asked for is "
                f"{', '.join(protocols)}."
            )
        approaches += taking_part
    return approaches, left_out
