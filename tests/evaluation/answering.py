"""Approaches that need no model, and a process that asks them: `answering.py OUTPUT [KILL_BEFORE_BATCH]`."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from tall_hf.evaluation.approach import Answer, Approach, Question
from tall_hf.evaluation.run import evaluate_approaches


QUESTIONS = [Question("word " * (1 + number % 7) + str(number), str(number % 3)) for number in range(50)]


class Drawing(Approach):
    """Answers with numbers that torch draws, so that a batch answered after other draws than before would show."""

    name = "drawing"

    def answer(self, questions, protocol, top_k=5):
        words = torch.randint(0, 3, (len(questions), top_k)).tolist()
        return [Answer(tuple(map(str, dict.fromkeys(row))), -torch.rand(1).item()) for row in words]


class Mortal(Drawing):
    """Writes down how many questions it gets, and kills its process before a batch."""

    def __init__(self, log: Path, killed_before: int | None = None):
        self.log = log
        self.killed_before = killed_before
        self.batches = 0

    def answer(self, questions, protocol, top_k=5):
        if self.batches == self.killed_before:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(json.dumps([question.truncated for question in questions]) + "\n")
        return super().answer(questions, protocol, top_k)


def ask(output: Path, killed_before: int | None = None):
    approach = Mortal(output.with_suffix(".jsonl"), killed_before)
    return evaluate_approaches([approach], {"clean": QUESTIONS}, output, batch_size=4, shard_batches=2, top_k=2)


if __name__ == "__main__":
    ask(Path(sys.argv[1]), *map(int, sys.argv[2:]))
