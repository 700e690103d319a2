"""What an evaluation of labels leaves behind: a table for each language with the average, a JSON, and a plot."""

import dataclasses
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from tall_hf.files import atomic_write, write_json
from tall_hf.measuring.figures import colour, error_bars, figure_class, save_png
from tall_hf.measuring.statistics import holm
from tall_hf.measuring.tables import Cells, markdown_table, p_value_text, percent_with_interval, rich_table

from .scores import chance, difference, label_scores, majority_accuracy, mean_interval
from .tasks import ClassificationTask


if TYPE_CHECKING:
    from .evaluate import Predictions

RESULTS_NAME = "results.json"
REPORT_NAME = "report.md"
PLOT_NAME = "accuracy.png"
_VERSIONS = ("tall-hf", "torch", "transformers", "datasets")


def write_report(
    task: ClassificationTask,
    predictions: Sequence["Predictions"],
    choices: dict[str, Sequence[Sequence[str]]],
    output: str | os.PathLike,
    *,
    details: dict[str, Any] | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> dict[str, Any]:
    """Score predictions, print the tables, and write `report.md`, `results.json` and `accuracy.png` to a folder.

    Args:
        task: which was asked.
        predictions: of every model in every language, model after model; the first model is the reference.
        choices: for each language, in order, the labels to choose from of each question.
        output: the folder; without matplotlib the plot is left out.
        details: further JSON values for `results.json`.
        seed: of the bootstrap.
        console: for the tables; the terminal when not given.

    Returns:
        What `results.json` holds.
    """
    console, output = console or Console(), Path(output)
    results = results_dict(task, predictions, choices, output, details, seed)
    sections = [f"# {task.name}\n"]
    for title, cells in (
        (f"Accuracy in {len(choices)} language{'s' if len(choices) > 1 else ''}", accuracy_rows(results)),
        ("Macro-F1", f1_rows(results)),
        (f"Differences from {results['reference']} on the same questions", difference_rows(results)),
    ):
        if cells[1]:
            console.print(rich_table(title, *cells))
            sections += [f"## {title}\n", markdown_table(*cells)]
    note = (
        'Brackets are 95% intervals. "chance" draws one of a question\'s labels; "majority" always says the label that is right '
        "most often among these very questions. The average counts every language alike; p-values are McNemar's after Holm."
    )
    console.print(note, soft_wrap=True, markup=False, highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / REPORT_NAME) as aside:
        aside.write_text("\n".join([*sections, f"{note}\n"]), encoding="utf-8")
    write_json(output / RESULTS_NAME, results)
    try:
        plot_languages(results, output / PLOT_NAME)
    except ImportError as error:
        console.print(f"No plot: {error}", soft_wrap=True, markup=False)
    return results


def results_dict(
    task: ClassificationTask,
    predictions: Sequence["Predictions"],
    choices: dict[str, Sequence[Sequence[str]]],
    output: Path,
    details: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures as JSON values: by language, then by model; and their averages over languages."""
    models = list(dict.fromkeys(entry.model for entry in predictions))
    found = {(entry.model, entry.language): entry for entry in predictions}
    languages = {}
    for language, labels in choices.items():
        answers = found[models[0], language].answers
        languages[language] = {
            "n": len(answers),
            "chance": chance(labels),
            "majority": majority_accuracy(answers, labels),
            "models": {
                model: label_scores(answers, found[model, language].labels, seed)
                | {
                    "cost": dataclasses.asdict(found[model, language].cost),
                    "predictions": os.path.relpath(found[model, language].path, output),
                }
                for model in models
            },
        }
    right = {model: [found[model, language].right for language in choices] for model in models}
    # Drawn from tables of unequal lengths, or with empty rows left out, the questions differ, and their answers tell.
    parallel = task.parallel and len({tuple(found[models[0], language].answers) for language in choices}) == 1
    average = {
        name: float(np.mean([entry[name] for entry in languages.values()])) for name in ("chance", "majority")
    } | {
        "models": {
            model: {
                "accuracy": float(np.mean([rights.mean() for rights in right[model]])),
                "accuracy_interval": mean_interval(right[model], parallel, seed=seed),
                "macro_f1": float(np.mean([entry["models"][model]["macro_f1"] for entry in languages.values()])),
            }
            for model in models
        }
    }
    _compare(models, right, languages, average, parallel, seed)
    return {
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "seed": seed,
        "reference": models[0],
        **(details or {}),
        "languages": languages,
        "average": average,
    }


def _compare(models, right, languages: dict, average: dict, parallel: bool, seed: int):
    """Put into the figures how models differ from the first one; p-values are adjusted over all of them."""
    reference = models[0]
    compared = [(model, place) for model in models[1:] for place in range(len(languages))]
    differences = {
        (model, place): difference(right[model][place], right[reference][place], seed) for model, place in compared
    }
    adjusted = holm([differences[pair]["p_value"] for pair in compared])
    names = list(languages)
    for (model, place), p_value in zip(compared, adjusted, strict=True):
        languages[names[place]]["models"][model]["comparison"] = differences[model, place] | {
            "adjusted_p_value": p_value
        }
    for model in models[1:]:
        gaps = [
            np.asarray(mine, dtype=float) - theirs for mine, theirs in zip(right[model], right[reference], strict=True)
        ]
        average["models"][model]["comparison"] = {
            "difference": float(np.mean([gap.mean() for gap in gaps])),
            "interval": mean_interval(gaps, parallel, bounds=(-1.0, 1.0), seed=seed),
        }


def accuracy_rows(results: dict[str, Any]) -> Cells:
    """A row for each language, and the average where there are several: questions, baselines, each model's accuracy."""
    models = list(results["average"]["models"])
    head = ["language", "n", "chance %", "majority %", *(f"{model} accuracy % [95%]" for model in models)]
    rows = [
        [
            name,
            f"{entry['n']:,}",
            *_percents(entry),
            *(percent_with_interval(entry["models"][model]) for model in models),
        ]
        for name, entry in results["languages"].items()
    ]
    if len(rows) > 1:
        average = results["average"]
        found = [percent_with_interval(average["models"][model]) for model in models]
        rows.append(["average", "", *_percents(average), *found])
    return head, rows


def f1_rows(results: dict[str, Any]) -> Cells:
    """A row for each language, and the average: each model's macro-F1."""
    models = list(results["average"]["models"])
    rows = [
        [name, *(percent_with_interval(entry["models"][model], "macro_f1") for model in models)]
        for name, entry in results["languages"].items()
    ]
    if len(rows) > 1:
        rows.append(["average", *(f"{100 * results['average']['models'][model]['macro_f1']:.2f}" for model in models)])
    return ["language", *(f"{model} macro-F1 % [95%]" for model in models)], rows


def difference_rows(results: dict[str, Any]) -> Cells:
    """A row for each language, and the average: how far each further model is above the first; none for one model."""
    models = list(results["average"]["models"])[1:]
    if not models:
        return [], []
    head = ["language", *(part for model in models for part in (f"{model} points [95%]", f"{model} p"))]
    entries = list(results["languages"].items())
    if len(entries) > 1:
        entries.append(("average", results["average"]))
    rows = []
    for name, entry in entries:
        row = [name]
        for model in models:
            found = entry["models"][model]["comparison"]
            low, high = (100 * bound for bound in found["interval"])
            p_value = found.get("adjusted_p_value")
            row += [
                f"{100 * found['difference']:+.2f} [{low:+.1f}, {high:+.1f}]",
                "" if p_value is None else p_value_text(p_value),
            ]
        rows.append(row)
    return head, rows


def plot_languages(results: dict[str, Any], path: Path) -> Path:
    """Accuracy in each language with its 95% interval, a bar for each model, the majority label as a line.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    models, entries = list(results["average"]["models"]), dict(results["languages"])
    if len(entries) > 1:
        entries["average"] = results["average"]
    width = 0.8 / len(models)
    figure = figure_class()(figsize=(max(5, 1.5 + 0.3 * len(entries) * (1 + len(models))), 4), layout="constrained")
    axis = figure.subplots()
    for place, model in enumerate(models):
        found = [entry["models"][model] for entry in entries.values()]
        accuracies = [scores["accuracy"] for scores in found]
        errors = error_bars(accuracies, [scores["accuracy_interval"] for scores in found])
        positions = [i - 0.4 + (place + 0.5) * width for i in range(len(entries))]
        heights = [100 * accuracy for accuracy in accuracies]
        axis.bar(positions, heights, width, yerr=errors, capsize=2, color=colour(place), label=model)
    for i, entry in enumerate(entries.values()):
        label = "majority label" if i == 0 else None
        axis.hlines(100 * entry["majority"], i - 0.45, i + 0.45, color="black", linestyles="dotted", label=label)
    axis.set_xticks(range(len(entries)), list(entries))
    axis.set_ylabel("accuracy in %, with 95% intervals")
    axis.set_ylim(0, 105)
    axis.grid(alpha=0.3, axis="y")
    figure.legend(loc="outside upper right", ncols=1 + len(models), fontsize="small")
    return save_png(figure, path)


def _percents(entry: dict[str, Any]) -> list[str]:
    return [f"{100 * entry[name]:.1f}" for name in ("chance", "majority")]
