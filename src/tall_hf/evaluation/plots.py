"""Plots of an evaluation: accuracies with intervals, over the evaluation set, by word frequency, by sentence length."""

from collections.abc import Sequence
from pathlib import Path

from tall_hf.measuring.figures import colour, error_bars, figure_class, save_png

from .scores import Scores, running_accuracy


_SPLITS = {
    "frequency": "occurrences of the missing word in the training text",
    "length": "words in the sentence",
}


def plot_all(scores: dict[str, list[Scores]], folder: Path) -> list[Path]:
    """Draw all plots of each protocol, as PNG files.

    Args:
        scores: by protocol, as `compute_scores` makes them.
        folder: where to; made if it is not there.

    Returns:
        The files.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    figure_class()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for protocol, entries in scores.items():
        drawn = [entry for entry in entries if entry.run.error is None]
        if not drawn:
            continue
        paths.append(plot_accuracy(drawn, folder / f"accuracy_{protocol}.png"))
        paths.append(plot_running_accuracy(drawn, folder / f"running_accuracy_{protocol}.png"))
        for by in _SPLITS:
            if by in drawn[0].splits:
                paths.append(plot_split(drawn, by, folder / f"accuracy_by_{by}_{protocol}.png"))
    return paths


def plot_accuracy(scores: Sequence[Scores], path: Path) -> Path:
    """Bars of accuracy with their 95% intervals, the first approach on top."""
    figure = figure_class()(figsize=(7, 1.2 + 0.35 * len(scores)), layout="constrained")
    axis = figure.subplots()
    for place, entry in enumerate(scores):
        accuracy, interval = entry.metrics["accuracy"], entry.metrics["accuracy_interval"]
        errors = error_bars([accuracy], [interval])
        axis.barh(place, 100 * accuracy, xerr=errors, color=colour(place), capsize=3)
        axis.annotate(
            f"{100 * accuracy:.1f}", (100 * interval[1], place), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks(range(len(scores)), [entry.run.approach for entry in scores])
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"accuracy in %, with 95% intervals ({scores[0].metrics['n']:,} sentences)")
    return save_png(figure, path)


def plot_running_accuracy(scores: Sequence[Scores], path: Path) -> Path:
    """Accuracy on the first sentences of the evaluation set against their number, as in the paper's Figure 4."""
    figure = figure_class()(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for place, entry in enumerate(scores):
        running = 100 * running_accuracy(entry.right)
        axis.plot(range(1, len(running) + 1), running, color=colour(place), label=entry.run.approach)
    axis.set_xlabel("sentences")
    return _save_lines(figure, path, axis)


def plot_split(scores: Sequence[Scores], by: str, path: Path) -> Path:
    """Accuracy against "frequency" or "length", with 95% intervals."""
    figure = figure_class()(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    names = list(scores[0].splits[by])
    for place, entry in enumerate(scores):
        parts = [entry.splits[by][name] for name in names]
        accuracies = [part["accuracy"] for part in parts]
        # Side by side, so that intervals of one part do not cover each other.
        offset = 0.5 * (place - (len(scores) - 1) / 2) / len(scores)
        positions = [i + offset for i in range(len(names))]
        axis.errorbar(
            positions,
            [100 * accuracy for accuracy in accuracies],
            yerr=error_bars(accuracies, [part["accuracy_interval"] for part in parts]),
            color=colour(place),
            marker="o",
            markersize=4,
            capsize=2,
            elinewidth=0.8,
            label=entry.run.approach,
        )
    counts = [scores[0].splits[by][name]["n"] for name in names]
    axis.set_xticks(range(len(names)), [f"{name}\nn={n:,}" for name, n in zip(names, counts, strict=True)])
    axis.set_xlabel(_SPLITS[by])
    return _save_lines(figure, path, axis)


def _save_lines(figure, path: Path, axis) -> Path:
    """Do what is left to do on `axis`, the same for all plots of lines, and write the file."""
    axis.set_ylabel("accuracy in %")
    axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])  # a line at 0 is seen
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return save_png(figure, path)
