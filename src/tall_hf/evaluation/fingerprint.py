"""What stands for models and functions in an approach's settings."""

import hashlib
from collections.abc import Callable

from transformers import PreTrainedModel

from tall_hf.data.translation import tokenizer_digest
from tall_hf.weights import hash_tensors


def model_fingerprint(model: PreTrainedModel, *tokenizers) -> str:
    """16 hexadecimal digits for a model's weights (names, dtypes, shapes, numbers), generation settings and tokenizers."""
    digest = hashlib.sha256()
    hash_tensors(digest, model.state_dict())
    if model.can_generate():
        settings = model.generation_config.to_diff_dict()
        settings.pop("transformers_version", None)
        digest.update(repr(sorted(settings.items())).encode())
    for tokenizer in tokenizers:
        digest.update(tokenizer_digest(tokenizer).encode())
    return digest.hexdigest()[:16]


def split_name(split: Callable[[str], list[str]]) -> str | None:
    """The name of a function that divides a sentence into words; None for `str.split`."""
    return None if split is str.split else getattr(split, "__qualname__", repr(split))
