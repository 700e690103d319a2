"""What a training of a sweep has left behind: its learning curve, what it cost, and which questions it answers."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tall_hf.files import read_json
from tall_hf.training.adapter_run import METRICS_NAME, samples_read
from tall_hf.training.checkpoints import SETTINGS_NAME, STATE_NAME

from .queue import is_done, read_record, state_of
from .stages import Trained


_ACCURACY = "eval_last_word_accuracy"
# Of the final validation accuracy.
_NEARLY = 0.9


@dataclass(frozen=True)
class Point:
    """A place on a learning curve.

    Attributes:
        steps, samples, seconds, processor_seconds: spent until then, what the training started from included.
        accuracy: of the validation sentences' last words, from 0 to 1.
    """

    steps: int
    samples: int
    seconds: float
    processor_seconds: float | None
    accuracy: float


@dataclass(frozen=True)
class Outcome:
    """What one training came to. What it started from counts: pretrained alignments in seconds, a training in all.

    Attributes:
        steps, samples: optimizer steps, and rows that they read.
        seconds: by the clock, from the start of a command to its end.
        processor_seconds: likewise, of the processor; None where an attempt was not measured.
        on_one_thread: whether all of it ran on one thread without an accelerator, so that the processor's seconds are those
            that it takes on a machine that does nothing else.
        trainable_parameters: of the last training.
        peak_memory: highest resident memory of a command, in bytes.
        peak_accelerator_memory: highest memory of tensors on the accelerator in the last training; None without one.
        validation_accuracy: of the model that was kept; None without validation sentences.
        curve: a point for each evaluation in a training.
        right: for each question of the evaluation, by what it is, whether it was answered rightly; None where not asked.
    """

    steps: int
    samples: int
    seconds: float
    processor_seconds: float | None
    on_one_thread: bool
    trainable_parameters: int
    peak_memory: int
    peak_accelerator_memory: int | None
    validation_accuracy: float | None
    curve: tuple[Point, ...]
    right: dict[tuple, bool] | None = None

    def nearly_there(self) -> Point | None:
        """The first evaluation with 90% of the last one's accuracy; None where nothing was learned or measured."""
        if not self.curve or self.curve[-1].accuracy == 0:
            return None
        return next(point for point in self.curve if point.accuracy >= _NEARLY * self.curve[-1].accuracy)

    def accuracy_after(self, seconds: float, of_processor: bool = False) -> float | None:
        """Validation accuracy at the last evaluation within so many seconds; None if there was none."""
        spent = [point.processor_seconds if of_processor else point.seconds for point in self.curve]
        reached = [point.accuracy for point, one in zip(self.curve, spent, strict=True) if one <= seconds]
        return reached[-1] if reached else None


def read_outcome(output: Path, trained: Trained, protocol: str | None = None) -> Outcome | None:
    """What a training came to, as far as it is there; None while it is not trained.

    Args:
        output: folder of the sweep.
        trained: which training.
        protocol: of the evaluation to read; none is read when not given.

    Raises:
        OSError, ValueError: a file that the training or the evaluation wrote is missing or damaged.
    """
    if not is_done(output, trained.train):
        return None
    before = None if trained.source is None else read_outcome(output, trained.source)
    metrics, settings = read_json(trained.folder / METRICS_NAME), read_json(trained.folder / SETTINGS_NAME)
    history = read_json(trained.folder / STATE_NAME)["log_history"]
    records = [read_record(output, stage) for stage in (trained.align, trained.train) if stage is not None]
    seconds = sum(record["seconds"] for record in records) + (before.seconds if before else 0)
    measured = [record.get("processor_seconds") for record in records] + ([before.processor_seconds] if before else [])
    processor_seconds = None if None in measured else sum(measured)
    rows, batch_size, drop_last = metrics["train_rows"], settings["batch_size"], settings["dataloader_drop_last"]
    points = {}
    for entry in history:
        # The last evaluation is of the model that was kept, whose step was evaluated before.
        if _ACCURACY in entry and entry["step"] not in points:
            # A log has no clock: every step is taken to have lasted as long.
            left = 1 - entry["step"] / metrics["steps"]
            points[entry["step"]] = Point(
                steps=entry["step"] + (before.steps if before else 0),
                samples=samples_read(entry["step"], rows, batch_size, drop_last) + (before.samples if before else 0),
                seconds=seconds - left * records[-1]["seconds"],
                processor_seconds=(
                    None if processor_seconds is None else processor_seconds - left * records[-1]["processor_seconds"]
                ),
                accuracy=entry[_ACCURACY],
            )
    return Outcome(
        steps=metrics["steps"] + (before.steps if before else 0),
        samples=metrics["samples"] + (before.samples if before else 0),
        seconds=seconds,
        processor_seconds=processor_seconds,
        on_one_thread=(
            metrics["peak_accelerator_memory"] is None
            and all(record.get("threads") == 1 for record in records)
            and (before is None or before.on_one_thread)
        ),
        trainable_parameters=metrics["trainable_parameters"],
        peak_memory=max([record["peak_memory"] or 0 for record in records] + [before.peak_memory if before else 0]),
        peak_accelerator_memory=metrics["peak_accelerator_memory"],
        validation_accuracy=metrics.get(_ACCURACY),
        curve=(*(before.curve if before else ()), *points.values()),
        right=_answers(output, trained, protocol),
    )


def state_text(output: Path, trained: Trained) -> str:
    """How far a training is, in words; empty when it is done and evaluated."""
    stages = [stage for stage in (trained.align, trained.train, trained.evaluate) if stage is not None]
    states = {stage.name: state_of(output, stage) for stage in stages}
    if failed := [name for name, state in states.items() if state == "failed"]:
        return f"{failed[0]} failed, see logs/{failed[0].replace(':', '.')}.log"
    missing = [name for name, state in states.items() if state == "missing"]
    return f"{missing[0]} is missing" if missing else ""


def asked_protocol(trainings: list[Trained]) -> str | None:
    """The protocol whose answers are read: clean where somebody was asked so, else another; None without evaluations."""
    folders = [trained.evaluation / "sentences" for trained in trainings if trained.evaluation is not None]
    found = sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir()})
    return found[0] if found else None


def _answers(output: Path, trained: Trained, protocol: str | None) -> dict[tuple, bool] | None:
    if protocol is None or trained.evaluate is None or not is_done(output, trained.evaluate):
        return None
    path = trained.evaluation / "sentences" / protocol / "tall.csv"
    if not path.is_file():
        return None
    seen: Counter[tuple] = Counter()
    right = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            question = (row["sentence"], row["missing_word"])
            seen[question] += 1  # a sentence may be asked twice
            right[*question, seen[question]] = row["correct"] == "1"
    return right
