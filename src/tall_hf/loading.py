"""The checkpoints that a model is composed of: Hub ids or folders, pinned, read whole from safetensors, and put together."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tall_hf.hub_token import check_token, without_tokens
from tall_hf.modeling.text_rows_tall import without_code


@dataclass(frozen=True)
class Component:
    """A checkpoint to build from: a folder, or a Hub id with the commit that `revision` stood for."""

    name_or_path: str
    revision: str | None

    @classmethod
    def resolve(cls, spec: str | os.PathLike, token: str | bool | None = None) -> "Component":
        """Parse `folder`, `org/name` or `org/name@revision`, and pin a Hub id to its commit.

        Raises:
            ValueError: for an empty name.
            OSError: when neither a folder nor a repository of that name is found.
            PermissionError: the token has characters that no token has.
        """
        spec = os.fspath(spec)
        if not spec:
            raise ValueError("A component's name is empty; give a folder or a Hub id such as 'Qwen/Qwen2.5-0.5B'.")
        if Path(spec).is_dir():
            return cls(str(Path(spec)), None)
        name, _, revision = spec.partition("@")
        if spec.startswith((".", "/", "~")) or name.count("/") > 1:
            raise FileNotFoundError(
                f"There is no folder {without_tokens(repr(spec))}; give a folder that exists or a Hub id."
            )
        check_token(token)
        # The file's place in the cache names the commit, also offline.
        try:
            config_file = hf_hub_download(name, "config.json", revision=revision or None, token=token)
        except LocalEntryNotFoundError as error:  # whose message names neither folder nor Hub id
            raise FileNotFoundError(
                f"There is no folder {without_tokens(repr(spec))}, and as a Hub id it is not in the cache and the Hub cannot be "
                f"asked for it: {error}"
            ) from error
        return cls(name, Path(config_file).parent.name)

    def load(self, auto_class, **kwargs):
        """`auto_class.from_pretrained` of this very revision; ValueError where code of the checkpoint's own would be run."""
        options = {"revision": self.revision or "main", "trust_remote_code": False, **kwargs}
        try:
            return auto_class.from_pretrained(self.name_or_path, **options)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"{self.name_or_path} can only be loaded by code of its own, which is not run here. Name a checkpoint of a "
                "type that transformers itself knows."
            ) from error


def load_tokenizer(part: Component, token: str | bool | None = None):
    """The tokenizer of a checkpoint; OSError if its files are missing or broken."""
    try:
        tokenizer = part.load(AutoTokenizer, token=token)
        known = len(tokenizer.get_vocab())
    except (TypeError, ValueError) as error:
        raise OSError(
            f"The tokenizer of {part.name_or_path} cannot be read; a file of it is missing or broken ({error})."
        ) from error
    if known < 2:
        raise OSError(
            f"{part.name_or_path} has no tokenizer: its files are missing. Save or download them beside the model."
        )
    without_code(tokenizer)
    return tokenizer


def load_part(
    part: Component,
    auto_class,
    dtype: torch.dtype,
    token: str | bool | None = None,
    allow_pickle: bool = False,
    config=None,
    unused: tuple[str, ...] = (),
):
    """The model of a checkpoint, by safetensors unless `allow_pickle`; what its `config` has no place for is not read.

    Names that begin as one of `unused` says may be missing.

    Raises:
        OSError: there are no such weights, or they are broken.
        ValueError: weights are missing or of another shape.
    """
    try:
        with quiet_transformers():
            model, info = part.load(
                auto_class,
                dtype=dtype,
                token=token,
                use_safetensors=None if allow_pickle else True,
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
                **({} if config is None else {"config": config}),
            )
    except SafetensorError as error:
        raise OSError(
            f"The safetensors weights of {part.name_or_path} are corrupted or incomplete ({error}). Download them again."
        ) from error
    except OSError as error:
        if allow_pickle or "safetensors" not in str(error):
            raise
        if part.revision is None:
            raise OSError(
                f"The folder {part.name_or_path} has no safetensors weights. Save the model there again with "
                "`save_pretrained`, or, to read pickled weights, which may be less safe, pass allow_pickle=True "
                "(`--allow-pickle`)."
            ) from error
        raise OSError(
            f"{part.name_or_path} has no safetensors weights. Many OPUS-MT repositories have them on a branch of their "
            f"own: try {part.name_or_path}@refs/pr/1 (see the repository's pull requests on the Hub). To read its "
            "pickled weights, which may be less safe, pass allow_pickle=True (`--allow-pickle`)."
        ) from error
    # Heads that the LLM's body has no use for may be left over; nothing may be missing.
    missing = [name for name in map(str, info["missing_keys"]) if not name.startswith(unused)]
    if missing or info["mismatched_keys"]:
        problem = sorted(missing or map(str, info["mismatched_keys"]))
        raise ValueError(
            f"{part.name_or_path} is not a whole checkpoint of {type(model).__name__}: {len(problem)} weights are missing "
            f"or of another shape, such as {problem[0]}. Download it again, or name another checkpoint."
        )
    return model


def check_vocabulary(part: Component, tokenizer, size: int, known: dict[str, int] | None = None) -> None:
    """ValueError if a tokenizer gives ids that its model, which embeds `size` tokens, does not know.

    Args:
        part: whose they are, for the message.
        tokenizer: its tokenizer.
        size: tokens that the model embeds.
        known: the tokenizer's tokens, where they are not all of its vocabulary.
    """
    languages = getattr(tokenizer, "lang_code_to_id", None) or {}  # M2M100's stand outside its vocabulary
    largest = max(*(known or tokenizer.get_vocab()).values(), *languages.values())
    if largest >= size:
        raise ValueError(
            f"The tokenizer of {part.name_or_path} has token ids up to {largest}, but its model embeds only "
            f"{size} tokens (0 to {size - 1}). They do not belong together; name a matching checkpoint."
        )


def assemble(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    state_dict: dict[str, torch.Tensor],
    dtype: torch.dtype,
    attn_implementation: str | dict | None = None,
    device_map: str | dict | None = None,
) -> PreTrainedModel:
    """A model with the weights of its parts, under their names in it, and fresh adapters; in evaluation mode.

    Raises:
        RuntimeError: a weight has no place in the model.
    """
    # transformers' own loading casts, places and ties, and initialises what the frozen parts do not bring.
    options = {"dtype": dtype, "device_map": device_map}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    with quiet_transformers():
        model, info = model_class.from_pretrained(
            None, config=config, state_dict=state_dict, output_loading_info=True, **options
        )
    if info["unexpected_keys"] or info["mismatched_keys"]:
        problem = sorted(map(str, info["unexpected_keys"] or info["mismatched_keys"]))
        raise RuntimeError(
            f"The frozen parts brought weights that {model_class.__name__} has no place for, such as {problem[0]}."
        )
    return model


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A floating-point dtype, from it or its name; ValueError for anything else."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(
            f"`dtype` must be a floating-point torch dtype or its name, such as 'bfloat16', got {dtype!r}."
        )
    return found


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within, transformers tells of errors alone.

    That an LLM's head is left over and the adapters are new is what composing means; its reports would only alarm. Who calls
    for this checks what was loaded.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
