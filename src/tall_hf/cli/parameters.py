"""The table of a model's parameters, for a terminal."""

from rich.console import Console
from rich.table import Table


# Behind the module's name, by how many counts a row of `parameter_table` has.
_COUNTS = {3: ("total", "trainable as the paper counts", "requires_grad"), 2: ("total", "trained")}


def print_parameters(model, console: Console):
    """Print a model's `parameter_table`, and what share of the parameters is trained."""
    rows = model.parameter_table()
    table = Table(title="Parameters", title_justify="left")
    table.add_column("module")
    for column in _COUNTS[len(rows[0]) - 1]:
        table.add_column(column, justify="right")
    for name, total, *counts in rows:
        style = "bold" if name == "total" else None
        table.add_row(name, *(f"{count:,}" for count in (total, *counts)), style=style)
        if name == "total":
            shares = (f"{count / total:.2%}" for count in counts)
            table.add_row("share of the total", "", *shares, style="bold", end_section=True)
    console.print(table)
