"""What stands for weights, models, tokenizers and settings where they must be known again: hashes of what they are."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel


# What a tokenizer's files say of where it came from, and of how it was called last.
_PASSING = {
    "tokenizer_config.json": ("auto_map", "name_or_path", "processor_class"),
    "tokenizer.json": ("padding", "truncation"),
}
# Likewise of how a tokenizer was found, put as it stands for one from a folder, so that a digest of such a one stays what it is.
_FOUND_AS = {"is_local": True, "local_files_only": False}


def json_digest(value: Any) -> str:
    """16 hexadecimal digits that stand for a JSON value.

    Raises:
        TypeError: the value is none.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def text_digest(*texts: str) -> str:
    """16 hexadecimal digits that stand for texts, such as other digests, joined by spaces."""
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:16]


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


def tokenizer_digest(tokenizer) -> str:
    """SHA-256 of the files that a tokenizer is saved as, what they say of its surroundings and its last call aside."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                if path.name in _PASSING:
                    config = json.loads(content)
                    for name in _PASSING[path.name]:
                        config.pop(name, None)
                    config |= {name: value for name, value in _FOUND_AS.items() if name in config}
                    content = json.dumps(config, sort_keys=True).encode()
                digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()


def hash_tensors(digest, tensors: Mapping[str, torch.Tensor], with_dtype: bool = True) -> None:
    """Feed tensors to a hash in the order of their names: name, dtype, shape and bytes of each.

    Args:
        digest: a hash of `hashlib`, updated in place.
        tensors: such as a module's `state_dict()`, of any shapes, on any device.
        with_dtype: whether the dtype counts; if not, floating-point numbers are hashed as float32, so that weights kept in
            bfloat16 and the same ones kept in float32 are the same.
    """
    for name, tensor in sorted(tensors.items()):
        if not with_dtype and tensor.is_floating_point():
            tensor = tensor.float()
        dtype = f" {tensor.dtype}" if with_dtype else ""
        digest.update(f"{name}{dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
