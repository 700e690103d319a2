"""The table of a sweep, finished or not, in a terminal and as Markdown, CSV and JSON, with its plot."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from tall_hf.files import atomic_write, write_json
from tall_hf.measuring.tables import interval_text, markdown_table, p_value_text, rich_table

from .compare import EqualTime, Summary, summarize
from .grid import Grid
from .outcomes import asked_protocol, read_outcome, state_text
from .plot import plot_sweep
from .stages import Trained


REPORT_NAME = "report.md"
JSON_NAME = "report.json"
CSV_NAME = "report.csv"
PLOT_NAME = "report.png"
# The first column of the table that tells what a row takes; a terminal shows those columns below the others.
_COSTS = 8


def write_report(grid: Grid, trainings: list[Trained], output: Path, console: Console | None = None) -> dict[str, Any]:
    """Compare the rows as far as they are trained, print their table, and write it to the output folder.

    Written are `report.md`, `report.csv`, `report.json` with the figures of every seed and where its model lies, and
    `report.png`, unless matplotlib is not installed.

    Args:
        grid: as `read_grid` gives it.
        trainings: of the grid, as `build_stages` gives them.
        output: folder of the sweep.
        console: for the table; the terminal when not given.

    Returns:
        What `report.json` holds.

    Raises:
        ImportError: the extra `eval` is not installed.
        OSError, ValueError: what a training or an evaluation wrote is missing or damaged.
    """
    console = console or Console()
    protocol = asked_protocol(trainings)
    outcomes, states = {name: {} for name in grid.rows}, {name: {} for name in grid.rows}
    for trained in trainings:
        states[trained.row][trained.seed] = state_text(output, trained)
        outcome = read_outcome(output, trained, protocol)
        if outcome is not None:
            outcomes[trained.row][trained.seed] = outcome
    evaluated = {trained.row for trained in trainings if trained.evaluate is not None}
    served = [name for name in grid.rows if evaluated and name not in evaluated]
    rows, equal_time = summarize(outcomes, grid.control, served)
    report = {
        "control": grid.control,
        "protocol": protocol,
        "equal_time": None if equal_time is None else equal_time._asdict(),
        "rows": {row.name: _row_dict(row, grid, trainings, states[row.name]) for row in rows},
    }
    head, cells = table_of(rows, grid, equal_time)
    notes = _notes(rows, states, grid, protocol, equal_time)
    for title, first, last in (("Accuracy", 1, _COSTS), ("Cost", _COSTS, len(head))):
        columns = [0, *range(first, last)]
        console.print(rich_table(title, [head[i] for i in columns], [[row[i] for i in columns] for row in cells]))
    for note in notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    write_json(output / JSON_NAME, report)
    with atomic_write(output / REPORT_NAME) as aside:
        text = "\n".join(["# Sweep\n", markdown_table(head, cells), *(f"{one}\n" for one in notes)])
        aside.write_text(text, encoding="utf-8")
    _write_csv(output / CSV_NAME, report["rows"])
    try:
        plot_sweep([row for row in rows if row.outcomes], output / PLOT_NAME)
    except ImportError as error:
        console.print(f"No plot: {error}", soft_wrap=True, markup=False)
    return report


def table_of(rows: list[Summary], grid: Grid, equal_time: EqualTime | None) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table; rows without a finished training stand in it by their names."""
    at_time = "validation %"
    if equal_time is not None:
        at_time += f" after {equal_time.seconds:,.0f} {'processor s' if equal_time.of_processor else 's'}"
    head = [
        "row",
        "seeds",
        "accuracy % [95%]",
        "by seed %",
        f"minus {grid.control} [95%]",
        "p",
        "validation %",
        at_time,
    ]
    head += [
        "trainable",
        "peak memory",
        "steps",
        "samples",
        "steps to 90%",
        "samples to 90%",
        "seconds",
        "processor s",
    ]
    cells = []
    for row in rows:
        steps, samples = row.nearly_there() or (None, None)
        comparison, difference = row.comparison, ""
        if comparison is not None:
            difference = f"{100 * comparison.difference:+.2f} {interval_text(comparison.interval)}"
        cells.append(
            [
                row.name,
                f"{len(row.outcomes)}/{len(grid.rows[row.name].seeds)}",
                "" if row.accuracy is None else f"{100 * row.accuracy:.2f} {interval_text(row.interval)}",
                "" if len(row.asked) < 2 else " to ".join(map(_percent, row.spread)),
                difference,
                "" if comparison is None else p_value_text(comparison.adjusted_p_value),
                _percent(row.mean(lambda outcome: outcome.validation_accuracy)),
                _percent(row.at_equal_time),
                _count(row.most(lambda outcome: outcome.trainable_parameters)),
                "" if row.memory is None else f"{row.memory / 2**30:.2f} GiB",
                _count(row.mean(lambda outcome: outcome.steps)),
                _count(row.mean(lambda outcome: outcome.samples)),
                _count(steps),
                _count(samples),
                _count(row.mean(lambda outcome: outcome.seconds)),
                _count(row.mean(lambda outcome: outcome.processor_seconds)),
            ]
        )
    return head, cells


def _notes(
    rows: list[Summary], states: dict, grid: Grid, protocol: str | None, equal_time: EqualTime | None
) -> list[str]:
    asked = [row for row in rows if row.questions]
    notes = []
    if asked:
        notes.append(
            f"Accuracy: of {max(row.questions for row in asked):,} held-out questions, protocol {protocol}. Intervals of one "
            "seed are Wilson's; of several they are over seeds and questions, each drawn again (with three seeds or fewer "
            "rather too narrow), and by seed from the lowest to the highest. Differences to "
            f"{grid.control} are of the same questions and seeds; p is McNemar's over "
            "these pairs, after Holm over all rows: whether these very models differ. Whether others of the same rows "
            "would, the interval tells."
        )
    if equal_time is not None:
        whose = "the processor's" if equal_time.of_processor else "the clock's"
        notes.append(
            "Validation: the last words of the validation sentences, of the model that was kept, and at the last evaluation "
            f"within {equal_time.seconds:,.0f} seconds ({whose}), when the fastest row had ended; every step is taken to have "
            "lasted as long as the mean of its training. Steps and samples to 90%: the first evaluation in the training with "
            "90% of the last one's accuracy. What a row started from counts in steps, samples and seconds, pretrained alignments in "
            "seconds. Memory is that of tensors on the accelerator where there is one, else of the whole process."
        )
    for name, found in states.items():
        for seed, text in found.items():
            if text:
                notes.append(f"Not done: {name}{'' if seed is None else f', seed {seed}'}: {text}.")
    return notes


def _row_dict(row: Summary, grid: Grid, trainings: list[Trained], states: dict) -> dict[str, Any]:
    """All figures of a row as JSON values, and those of each of its seeds."""
    steps, samples = row.nearly_there() or (None, None)
    lowest, highest = row.spread or (None, None)
    return {
        "seeds_done": len(row.outcomes),
        "seeds_wanted": len(grid.rows[row.name].seeds),
        "accuracy": row.accuracy,
        "accuracy_interval": row.interval,
        "accuracy_lowest_seed": lowest,
        "accuracy_highest_seed": highest,
        "questions": row.questions,
        **{
            f"comparison_{name}": None if row.comparison is None else getattr(row.comparison, name)
            for name in ("difference", "interval", "seeds", "p_value", "adjusted_p_value")
        },
        "validation_accuracy": row.mean(lambda outcome: outcome.validation_accuracy),
        "validation_accuracy_at_equal_time": row.at_equal_time,
        "trainable_parameters": row.most(lambda outcome: outcome.trainable_parameters),
        "peak_memory": row.most(lambda outcome: outcome.peak_memory),
        "peak_accelerator_memory": row.most(lambda outcome: outcome.peak_accelerator_memory),
        "steps": row.mean(lambda outcome: outcome.steps),
        "samples": row.mean(lambda outcome: outcome.samples),
        "steps_to_90_percent": steps,
        "samples_to_90_percent": samples,
        "seconds": row.mean(lambda outcome: outcome.seconds),
        "processor_seconds": row.mean(lambda outcome: outcome.processor_seconds),
        "seeds": [_seed_dict(trained, row, states[trained.seed]) for trained in trainings if trained.row == row.name],
    }


def _seed_dict(trained: Trained, row: Summary, state: str) -> dict[str, Any]:
    found = {
        "seed": trained.seed,
        "state": state or "done",
        "folder": str(trained.folder),
        "evaluation": None if trained.evaluation is None else str(trained.evaluation),
    }
    outcome = row.outcomes.get(trained.seed)
    if outcome is not None:
        figures = {item.name: getattr(outcome, item.name) for item in dataclasses.fields(outcome)}
        figures["curve"] = [dataclasses.asdict(point) for point in outcome.curve]
        right = figures.pop("right")
        figures["accuracy"] = None if right is None else sum(right.values()) / len(right)
        found |= figures
    return found


def _write_csv(path: Path, rows: dict[str, dict]) -> None:
    with atomic_write(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        writer = None
        for name, row in rows.items():
            flat = {"row": name}
            for key, value in row.items():
                if key.endswith("interval"):
                    low, high = value or (None, None)
                    flat |= {f"{key}_low": low, f"{key}_high": high}
                elif key != "seeds":
                    flat[key] = value
            if writer is None:
                writer = csv.DictWriter(file, list(flat))
                writer.writeheader()
            writer.writerow(flat)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
