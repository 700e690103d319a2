"""The hash that stands for weights."""

import hashlib

import torch

from tall_hf.weights import hash_tensors


def digest_of(tensors, **options):
    digest = hashlib.sha256()
    hash_tensors(digest, tensors, **options)
    return digest.hexdigest()


def test_names_dtypes_shapes_and_bytes_in_the_order_of_the_names():
    tensors = {"b": torch.tensor([[1, 2]], dtype=torch.int16), "a": torch.tensor(0.5)}
    expected = b"a torch.float32 ()" + b"\x00\x00\x00\x3f" + b"b torch.int16 (1, 2)" + b"\x01\x00\x02\x00"
    assert digest_of(tensors) == hashlib.sha256(expected).hexdigest()
    without = b"a ()" + b"\x00\x00\x00\x3f" + b"b (1, 2)" + b"\x01\x00\x02\x00"
    assert digest_of(tensors, with_dtype=False) == hashlib.sha256(without).hexdigest()


def test_everything_counts_but_the_layout_in_memory():
    weight = torch.arange(6.0).reshape(2, 3)
    assert digest_of({"a": weight.t().contiguous().t()}) == digest_of({"a": weight})
    others = [{"b": weight}, {"a": weight.reshape(3, 2)}, {"a": weight + 1}, {"a": weight.bfloat16()}]
    assert len({digest_of(tensors) for tensors in [{"a": weight}, *others]}) == 5


def test_without_dtype_the_same_numbers_are_the_same():
    weight = torch.arange(6.0)
    assert digest_of({"a": weight.bfloat16()}, with_dtype=False) == digest_of({"a": weight}, with_dtype=False)
    assert digest_of({"a": weight + 0.001}, with_dtype=False) != digest_of({"a": weight}, with_dtype=False)
