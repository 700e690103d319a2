"""Tables for a terminal and in Markdown, of the same cells, and how figures are written in them."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from rich.table import Table


# Head and rows of a table.
Cells: TypeAlias = tuple[list[str], list[list[str]]]


def rich_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal: names on the left, figures on the right."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown, a line a row."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n"


def counts_table(title: str, counts: Iterable[tuple[str, int]], read: int) -> Table:
    """Where texts went, for a terminal.

    Args:
        title: above the table.
        counts: what was counted, with how many texts.
        read: how many there were in all, of which the shares are.
    """
    rows = [[name, f"{count:,}", f"{count / max(1, read):.1%}"] for name, count in counts]
    return rich_table(title, ["texts", "count", "share"], rows)


def percent_with_interval(scores: dict, name: str = "accuracy", interval: bool = True) -> str:
    """`scores[name]`, a share, in percent, with `scores[f"{name}_interval"]` behind it if wanted."""
    percent = f"{100 * scores[name]:.2f}"
    return f"{percent} {interval_text(scores[f'{name}_interval'])}" if interval else percent


def interval_text(bounds: Sequence[float]) -> str:
    """The bounds of an interval of shares, in percent."""
    low, high = bounds
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def p_value_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
