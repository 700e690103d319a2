"""Batches for a translator that learns from nothing in little time: so many tokens each, short pairs before long ones.

Until attention has found which word translates which, a decoder only learns how its own language goes. In short pairs it
finds that sooner, after which long ones are learned faster as well. Text without a translation comes in late for the same
reason.
"""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, Sampler
from transformers import Seq2SeqTrainer

from tall_hf.training.checkpoint_rotation import StepwiseRotation


class ShortFirst(Sampler[list[int]]):
    """Batches of row numbers for a whole training, the same whenever it is iterated over.

    Args:
        lengths: tokens of each row, of its longer side.
        tokens: of a batch at most, padding included; a longer row is a batch of its own.
        steps: how many batches.
        growth: share of the steps that begin with the shortest third of the rows and let in more, evenly, until all are
            there; 0 gives all from the start.
        seed: of the order.
        late: how many rows, the last ones, are left out at first.
        late_from: share of the steps after which they are read like all others.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens: int,
        steps: int,
        growth: float,
        seed: int = 0,
        late: int = 0,
        late_from: float = 0.0,
    ):
        self.lengths, self.tokens, self.steps, self.growth, self.seed = lengths, tokens, steps, growth, seed
        self.late, self.late_from = late, late_from

    def __len__(self) -> int:
        return self.steps

    def limits(self) -> list[int]:
        """Length of the longest row that each step may read, of those that are not late."""
        ordered = sorted(self.lengths[: len(self.lengths) - self.late])
        growing = self.growth * self.steps
        grown = (min(1.0, step / growing) if growing else 1.0 for step in range(self.steps))
        return [ordered[int((len(ordered) - 1) * (1 + 2 * share) / 3)] for share in grown]

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(self.seed)
        early = len(self.lengths) - self.late
        batches: list[list[int]] = []
        known = None
        for step, limit in enumerate(self.limits()):
            readable = (limit, len(self.lengths) if step >= self.late_from * self.steps else early)
            if not batches or readable != known:
                known = readable
                batches = self._cut([row for row in range(readable[1]) if self.lengths[row] <= limit], rng)
            yield batches.pop()

    def _cut(self, rows: list[int], rng: random.Random, chunk: int = 4000) -> list[list[int]]:
        """All rows once, rows of like length together, the batches shuffled."""
        rng.shuffle(rows)
        batches = []
        for start in range(0, len(rows), chunk):
            batch: list[int] = []
            for row in sorted(rows[start : start + chunk], key=self.lengths.__getitem__):
                if batch and self.lengths[row] * (len(batch) + 1) > self.tokens:
                    batches.append(batch)
                    batch = []
                batch.append(row)
            batches.append(batch)
        rng.shuffle(batches)
        return batches


class BatchesTrainer(StepwiseRotation, Seq2SeqTrainer):
    """A Seq2SeqTrainer that reads the batches it is given, in their order.

    Args:
        batches: a batch sampler over the training dataset.
        others: as Seq2SeqTrainer takes them.
    """

    def __init__(self, *args, batches: Sampler[list[int]], **others):
        super().__init__(*args, **others)
        self.batches = batches

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)
