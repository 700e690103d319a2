"""What figures have in common: matplotlib where it is installed, colours, intervals as bars, and PNG files written whole."""

from collections.abc import Sequence
from pathlib import Path

from tall_hf.files import atomic_write


def figure_class(extra: str = "eval"):
    """matplotlib's Figure, imported where something is drawn.

    Args:
        extra: the extra of this package that installs matplotlib for who draws.

    Raises:
        ImportError: matplotlib is not installed; the message says what to install.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"Plots are drawn by matplotlib: pip install 'tall-hf[{extra}]'.") from error
    return Figure


def colour(place: int):
    """The colour of an approach, a model or a row, by its place in the table."""
    from matplotlib import colormaps

    # Ten strong colours, then the same ten paler.
    return colormaps["tab20"]([*range(0, 20, 2), *range(1, 20, 2)][place % 20])


def error_bars(shares: Sequence[float], intervals: Sequence[tuple[float, float]]) -> list[list[float]]:
    """How far below and above shares their intervals reach, in percent: `yerr` or `xerr`, of shape (2, shares)."""
    # Rounding may put a bound on the wrong side of a share of 0 or 1.
    return [
        [max(0.0, 100 * (share - low)) for share, (low, _) in zip(shares, intervals, strict=True)],
        [max(0.0, 100 * (high - share)) for share, (_, high) in zip(shares, intervals, strict=True)],
    ]


def save_png(figure, path: str | Path, dpi: int = 120) -> Path:
    """Write a figure to a PNG file, whole or not at all."""
    with atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=dpi)
    return Path(path)
