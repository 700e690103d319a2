"""Loaders of the models that approaches are made of."""

import os
from collections.abc import Callable
from typing import TypeAlias

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tall_hf.components import Component, load_part, load_tokenizer
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor


# Gives a model in evaluation mode and its tokenizer, or a TALL and its processor. For an approach that only asks they may
# be at hand already; one that trains calls it for each fresh start, and changes the model that it gets.
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
        dtype, device, token: as for `loader`.
    """

    def load():
        model = TALLForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, token=token)
        return model.to(device).eval(), TALLProcessor.from_pretrained(folder, token=token)

    return load
