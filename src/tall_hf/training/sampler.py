"""EpochSampler: the order in which a training reads its rows, which only seed and epoch decide."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(Sampler[int]):
    """Order of the training rows, a function of seed and epoch alone: the same after a resume and on every process.

    Args:
        size: number of rows.
        seed: of the orders.
        epoch: called at the start of each epoch, returns its number.
        lengths: of the rows; given, rows of similar length come together.
        batch_size: rows of one optimizer step over all processes.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        epoch: Callable[[], int],
        lengths: Sequence[int] | None = None,
        batch_size: int = 1,
    ):
        self.size, self.seed, self.epoch = size, seed, epoch
        self.lengths, self.batch_size = lengths, batch_size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        if self.lengths is None:
            yield from torch.randperm(self.size, generator=generator).tolist()
        else:
            yield from get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
