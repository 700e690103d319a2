"""The plot of a sweep: accuracy against trainable parameters, and against samples seen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tall_hf.measuring.figures import colour, error_bars, figure_class, save_png

from .compare import Summary


# Shades of more rows would cover each other.
_MOST_WITH_SPREAD = 8
# What rows with as many parameters are drawn apart by, for most levers leave their number alone.
_APART = 1.008


def plot_sweep(rows: Sequence[Summary], path: Path) -> Path:
    """Draw two panels to a PNG: rows by trainable parameters and accuracy, and their learning curves.

    The left panel has the accuracy of the evaluation, with its 95% interval, of rows without one that of the validation
    sentences. The right panel has validation accuracy, the mean over seeds, and with few rows in a paler shade from the
    lowest to the highest seed. The legend numbers the rows, with peak memory and the steps to 90% of the final accuracy.

    Args:
        rows: those that have something to draw.
        path: the file to write.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    figure = figure_class()(figsize=(15, max(5.0, 1.5 + 0.21 * len(rows))), layout="constrained")
    left, right = figure.subplots(1, 2)
    markers = "os^DvP"
    placed = _side_by_side([row.most(lambda outcome: outcome.trainable_parameters) for row in rows])
    for place, row in enumerate(rows):
        style = {"color": colour(place), "marker": markers[place // 20 % len(markers)]}
        _draw_accuracy(left, row, placed[place], place + 1, style)
        _draw_curve(right, row, place + 1, style, with_spread=len(rows) <= _MOST_WITH_SPREAD)
    left.set(xlabel="trainable parameters (equal ones side by side)", ylabel="accuracy in %", xscale="log")
    right.set(xlabel="samples seen", ylabel="validation accuracy in %")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    if rows:
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside right upper", fontsize="small", title="row (peak memory, steps to 90%)"
        )
    return save_png(figure, path)


def _side_by_side(parameters: list[int]) -> list[float]:
    """Where rows with these numbers of parameters are drawn."""
    placed = []
    for place, number in enumerate(parameters):
        middle = (parameters.count(number) - 1) / 2
        placed.append(number * _APART ** (parameters[:place].count(number) - middle))
    return placed


def _draw_accuracy(axis, row: Summary, parameters: float, number: int, style: dict):
    accuracy = row.accuracy
    if accuracy is None:
        accuracy = row.mean(lambda outcome: outcome.validation_accuracy)
    label = f"{number} {row.name} ({_cost(row)})"
    if accuracy is None:
        axis.errorbar([], [], label=label, **style)
        return
    errors = error_bars([accuracy], [row.interval or (accuracy, accuracy)])
    axis.errorbar([parameters], [100 * accuracy], yerr=errors, capsize=2, linestyle="none", label=label, **style)
    axis.annotate(str(number), (parameters, 100 * accuracy), xytext=(4, 4), textcoords="offset points", fontsize=8)


def _draw_curve(axis, row: Summary, number: int, style: dict, with_spread: bool):
    curves = [outcome.curve for outcome in row.outcomes.values() if outcome.curve]
    if not curves:
        return
    # Seeds are evaluated after as many samples, but for early stopping.
    length = min(map(len, curves))
    samples = [point.samples for point in curves[0][:length]]
    accuracies = 100 * np.array([[point.accuracy for point in curve[:length]] for curve in curves])
    axis.plot(
        samples, accuracies.mean(axis=0), color=style["color"], marker=style["marker"], markersize=3, linewidth=1
    )
    axis.annotate(
        str(number), (samples[-1], accuracies[:, -1].mean()), xytext=(4, -3), textcoords="offset points", fontsize=8
    )
    if len(curves) > 1 and with_spread:
        axis.fill_between(samples, accuracies.min(axis=0), accuracies.max(axis=0), color=style["color"], alpha=0.15)


def _cost(row: Summary) -> str:
    nearly = row.nearly_there()
    return f"{row.memory / 2**30:.2f} GiB, {'-' if nearly is None else f'{nearly[0]:,.0f}'}"
