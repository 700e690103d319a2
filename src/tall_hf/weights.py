"""What stands for weights where they must be known again: a hash of their names, shapes and bytes."""

from collections.abc import Mapping

import torch


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
