"""What models are asked on: the device, the dtype that they compute in there, and its memory given back."""

import functools
import gc
import time

import torch
from transformers.utils import logging


logger = logging.get_logger(__name__)
# One with AVX2 alone was 6 to 90 times slower in bfloat16 than in float32, by the product's shape, and 60 times in the one tried here.
_FAR_SLOWER = 4


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
    if name == "bfloat16" and not torch.accelerator.is_available():
        warn_of_slow_bfloat16("dtype 'float32'")
    return getattr(torch, name)


def warn_of_slow_bfloat16(instead: str) -> None:
    """Say so where the processor, which is to compute in bfloat16, has no instructions for it; and what to do `instead`."""
    if not processor_computes_bfloat16():
        logger.warning(
            "This processor has no instructions for bfloat16 and is many times slower in it than in float32: "
            f"{instead} is sooner done, and more exact."
        )


@functools.cache
def processor_computes_bfloat16() -> bool:
    """Whether the processor multiplies matrices in bfloat16 about as fast as in float32, or faster; tried once, in milliseconds.

    Tried, because torch has no public question for it that holds for all processors.
    """
    return _seconds(torch.bfloat16) < _FAR_SLOWER * _seconds(torch.float32)


def _seconds(dtype: torch.dtype, size: int = 128) -> float:
    """The shortest of five products of two matrices: other work on the machine disturbs few of them."""
    matrix = torch.ones(size, size, dtype=dtype, device="cpu")
    times = []
    for _ in range(6):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return min(times[1:])  # the first one prepares the others


def free_memory():
    """Give back the memory of models that nobody holds any more, also that on an accelerator."""
    gc.collect()  # a Trainer and its model hold each other
    if torch.accelerator.is_available():
        torch.get_device_module(torch.accelerator.current_accelerator()).empty_cache()
