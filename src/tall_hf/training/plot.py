"""The plots of a training (as in the paper's Figure 3), of the alignments' pretraining and of what a source fusion learned."""

from pathlib import Path
from typing import TYPE_CHECKING

from tall_hf.measuring.figures import figure_class, save_png


if TYPE_CHECKING:
    from .alignment_report import AlignmentReport
    from .layer_weights import LayerWeight


def plot_training(
    log_history: list[dict[str, float]], path: str | Path, accuracy_name: str = "last_word_accuracy"
) -> Path:
    """Draw a training's loss, accuracy and perplexity against steps to a PNG.

    Args:
        log_history: the Trainer's `state.log_history`.
        path: the file to write.
        accuracy_name: the metric of the panel in the middle.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    # Panels from top to bottom: title, and the curves by what the log calls them.
    panels = (
        ("loss", {"loss": "training", "eval_loss": "evaluation"}),
        (accuracy_name.replace("_", " ").replace("last word", "last-word"), {f"eval_{accuracy_name}": "evaluation"}),
        ("perplexity", {"eval_perplexity": "evaluation"}),
    )
    figure = figure_class("train")(figsize=(7, 8), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True)
    for axis, (title, curves) in zip(axes, panels, strict=True):
        for name, label in curves.items():
            points = [(entry["step"], entry[name]) for entry in log_history if name in entry]
            if points:
                axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None, label=label)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[-1].set_xlabel("step")
    return save_png(figure, path)


def plot_alignments(reports: dict[str, "AlignmentReport"], path: str | Path) -> Path:
    """Draw the alignments' validation loss and explained variance against epochs to a PNG, the kept epochs marked.

    Args:
        reports: what pretraining made of each alignment, by its name.
        path: the file to write.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    figure = figure_class("train")(figsize=(8, 3), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("validation_loss", "explained_variance"), strict=True):
        for name, report in reports.items():
            [line] = axes.plot([entry[key] for entry in report.history], label=name.replace("_", " "))
            axes.plot(report.best_epoch, report.history[report.best_epoch][key], "o", color=line.get_color())
        axes.set(xlabel="epoch", ylabel=key.replace("_", " "))
        axes.grid(alpha=0.3)
    axes.set_ylim(-0.1, 1.0)  # the untrained mirror is far below, and would flatten the rest
    axes.legend()
    return save_png(figure, path, dpi=150)


def plot_layer_weights(weights: list["LayerWeight"], path: str | Path) -> Path:
    """Draw how much each layer of the source encoder weighs, with the spread over tokens, to a PNG.

    Args:
        weights: what `source_layer_weights` gave.
        path: the file to write.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    figure = figure_class("train")(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    numbers = range(1, len(weights) + 1)
    axes.bar(numbers, [one.mean for one in weights], yerr=[one.std for one in weights], capsize=3)
    # Where a global fusion starts; that of each token starts at random weights.
    axes.axhline(1 / len(weights), color="grey", linestyle="--", label="equal weights")
    axes.set(xlabel="layer of the source encoder", ylabel="weight", xticks=numbers)
    axes.legend()
    return save_png(figure, path)
