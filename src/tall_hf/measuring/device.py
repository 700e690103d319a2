"""What models are asked on: the device, the dtype that they compute in there, and its memory given back."""

import gc

import torch


def accelerator_or_cpu() -> torch.device:
    """Where models are asked."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def choose_dtype(name: str) -> torch.dtype:
    """The dtype of "float32", "bfloat16" or "auto": bfloat16 where an accelerator computes in it.

    Raises:
        ValueError: another name.
    """
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported(False) else torch.float32
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"`dtype` must be 'auto', 'float32' or 'bfloat16', got {name!r}.")
    return getattr(torch, name)


def free_memory():
    """Give back the memory of models that nobody holds any more, also that on an accelerator."""
    gc.collect()  # a Trainer and its model hold each other
    if torch.accelerator.is_available():
        torch.get_device_module(torch.accelerator.current_accelerator()).empty_cache()
