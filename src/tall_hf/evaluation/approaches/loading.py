"""Loaders of the models that approaches are made of."""

import os
from collections.abc import Callable
from typing import TypeAlias

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tall_hf.components import Component, load_part, load_tokenizer


# Gives a model in evaluation mode and its tokenizer, which may be at hand already, or be read when they are first needed.
# An approach that trains calls it again for each fresh start.
Loader: TypeAlias = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


def loader(
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
