"""The plot of a training: loss, last-word accuracy and perplexity against steps, as in the paper's Figure 3."""

from pathlib import Path


# Panels from top to bottom: title, and the curves by what the log calls them.
_PANELS = (
    ("loss", {"loss": "training", "eval_loss": "evaluation"}),
    ("last-word accuracy", {"eval_last_word_accuracy": "evaluation"}),
    ("perplexity", {"eval_perplexity": "evaluation"}),
)


def plot_training(log_history: list[dict[str, float]], path: str | Path) -> Path:
    """Draw a training's log to a PNG.

    Args:
        log_history: the Trainer's `state.log_history`.
        path: the file to write.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots are drawn by matplotlib: pip install 'tall-hf[train]'.") from error

    figure = Figure(figsize=(7, 8), layout="constrained")
    axes = figure.subplots(len(_PANELS), 1, sharex=True)
    for axis, (title, curves) in zip(axes, _PANELS, strict=True):
        for name, label in curves.items():
            points = [(entry["step"], entry[name]) for entry in log_history if name in entry]
            if points:
                axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None, label=label)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[-1].set_xlabel("step")
    path = Path(path)
    figure.savefig(path, format="png", dpi=120)
    return path
