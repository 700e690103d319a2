"""What the benchmarks' command lines have in common: numbers that count something, and a device that is there."""

import argparse

import torch


def count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is expected, got {text!r}")
    return int(text)


def device(text: str) -> str:
    """The name of a device that torch can compute on.

    Raises:
        argparse.ArgumentTypeError: it is not there.
    """
    there = ["cpu", *([torch.accelerator.current_accelerator().type] if torch.accelerator.is_available() else [])]
    if text.partition(":")[0] not in there:
        raise argparse.ArgumentTypeError(f"torch sees {' and '.join(map(repr, there))} here, and not {text!r}")
    return text
