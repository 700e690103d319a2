"""Which of torch's attention kernels a training step takes."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


# Tokens up to which attention is a small part of a step, and its matrix of weights of no size.
_SHORT = 128


@contextlib.contextmanager
def training_attention(inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let `sdpa` attend by plain matrix products to short rows on a CPU, where its fused kernel's backward is the slower one.

    It has no effect on other devices, on longer rows, whose matrix of weights would take memory, and on `eager` attention.

    Args:
        inputs: of the model, each (batch, length, ...).
    """
    rows = [tensor for tensor in inputs.values() if isinstance(tensor, torch.Tensor) and tensor.dim() > 1]
    if any(tensor.device.type != "cpu" or tensor.shape[1] > _SHORT for tensor in rows):
        yield
        return
    # Without this, which the fused kernel does too, products of bfloat16 would be computed in float32.
    backends = torch.backends.cuda
    was_reduced = backends.fp16_bf16_reduction_math_sdp_allowed()
    backends.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        backends.allow_fp16_bf16_reduction_math_sdp(was_reduced)
