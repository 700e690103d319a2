"""What an evaluation leaves behind: tables, a CSV of every sentence, a JSON for the model card, and plots."""

import csv
import dataclasses
import math
import platform
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from tall_hf.files import atomic_write, write_json
from tall_hf.measuring.tables import markdown_table, rich_table

from .approach import Question, TrainingText
from .plots import plot_all
from .run import Results
from .scores import OVERLAP, Scores, compute_scores
from .tables import cost_rows, error_lines, quality_rows, split_rows


RESULTS_NAME = "results.json"
REPORT_NAME = "report.md"
# What is split by, and how it is headed.
_SPLITS = {
    "group": "Accuracy % by group",
    "frequency": "Accuracy % by how often the missing word stands in the training text",
    "overlap": f"Accuracy % by whether {OVERLAP} words in a row of the sentence stand in the training text",
    "length": "Accuracy % by words in the sentence",
}
_VERSIONS = ("tall-hf", "torch", "transformers", "datasets", "sacrebleu")


def write_report(
    results: Results,
    output: str | Path,
    *,
    reference: str = "tall",
    training: TrainingText | None = None,
    split: Callable[[str], list[str]] = str.split,
    strip_niqqud: bool = False,
    details: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Score the runs, print their tables, and write everything to a folder.

    Written are `report.md` (the tables), `results.json` (all figures, with settings, versions and cost),
    `sentences/PROTOCOL/APPROACH.csv`, and `plots/*.png`, unless matplotlib is not installed.

    Args:
        results: of `evaluate_approaches`.
        output: the folder.
        reference: name of the approach that the others are compared with.
        training: the text in which words are counted, and looked for seven in a row.
        split: divides a sentence into words.
        strip_niqqud: whether Hebrew vowel points are left out of account where words are looked for in the training text.
        details: further JSON values for `results.json`, such as which model and which sentences.
        notes: lines to print and write below the tables.
        console: for the tables; the terminal when not given.

    Returns:
        What `results.json` holds.
    """
    console, output = console or Console(), Path(output)
    scores = {
        protocol: compute_scores(results, protocol, reference, training, split, results.seed, strip_niqqud)
        for protocol in results.questions
    }
    report = results_dict(results, scores, reference, details)
    for earlier in (output / "sentences", output / "plots"):  # of approaches that are not among these
        shutil.rmtree(earlier, ignore_errors=True)
    sections = ["# The missing word\n"]
    for protocol, entries in scores.items():
        count = len(results.questions[protocol])
        sections += print_tables(f"Protocol {protocol}: {count:,} sentences", entries, reference, console)
        for entry in entries:
            if entry.run.error is None:
                path = output / "sentences" / protocol / f"{entry.run.approach}.csv"
                write_sentences(entry, results.questions[protocol], path)
    for note in notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
        sections.append(f"{note}\n")
    with atomic_write(output / REPORT_NAME) as aside:
        aside.write_text("\n".join(sections), encoding="utf-8")
    write_json(output / RESULTS_NAME, report)
    try:
        plot_all(scores, output / "plots")
    except ImportError as error:
        console.print(f"No plots: {error}", soft_wrap=True, markup=False)
    return report


def print_tables(title: str, scores: Sequence[Scores], reference: str, console: Console) -> list[str]:
    """Print the tables of one protocol, and return them as sections of a Markdown file."""
    quality, cost = quality_rows(scores, reference), cost_rows(scores)
    console.print(rich_table(title, *quality))
    sections = [f"## {title}\n", markdown_table(*quality)]
    if errors := error_lines(scores):
        console.print("\n".join(errors), style="red", markup=False, highlight=False, soft_wrap=True)
        sections.append("".join(f"- {' '.join(line.split())}\n" for line in errors))
    console.print(rich_table("Probabilities and cost", *cost))
    sections += ["### Probabilities and cost\n", markdown_table(*cost)]
    for by, heading in _SPLITS.items():
        head, rows = split_rows(scores, by, intervals=True)
        if rows:
            if by == "group":  # the others stand in the file alone
                console.print(rich_table(heading, *split_rows(scores, by, intervals=False)))
            sections += [f"### {heading}\n", markdown_table(head, rows)]
    return sections


def write_sentences(scores: Scores, questions: Sequence[Question], path: Path):
    """A CSV with a row for each question: what was missing, and what the approach said."""
    head = ("sentence", "missing_word", "prediction", "rank", "translation", "correct", "group")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for question, answer, rank in zip(questions, scores.run.answers, scores.ranks.tolist(), strict=True):
            prediction = answer.words[0] if answer.words else ""
            row = (question.sentence, question.missing_word, prediction, rank or "")
            writer.writerow((*row, answer.translation or "", int(rank == 1), question.group or ""))


def results_dict(
    results: Results, scores: dict[str, list[Scores]], reference: str, details: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All figures as JSON values; an infinite one is the string "inf", for JSON has no such number."""
    report = {
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "seed": results.seed,
        "batch_size": results.batch_size,
        "top_k": results.top_k,
        "reference": reference,
        **(details or {}),
        "protocols": {
            protocol: {
                "questions": len(results.questions[protocol]),
                "approaches": {entry.run.approach: _approach_dict(entry) for entry in entries},
            }
            for protocol, entries in scores.items()
        },
    }
    return _json_values(report)


def _approach_dict(scores: Scores) -> dict[str, Any]:
    run = scores.run
    described = {
        "metrics": scores.metrics,
        "comparison": dataclasses.asdict(scores.comparison) if scores.comparison else None,
        "splits": scores.splits,
        "settings": run.settings,
        "learned": run.learned,
        "fitting_cost": dataclasses.asdict(run.fitting) if run.fitting else None,
        "answering_cost": dataclasses.asdict(run.answering),
    }
    return described if run.error is None else {"error": run.error, **described}


def _json_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
