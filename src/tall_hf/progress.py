"""The progress bars of long work in a terminal, with its speed."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text


def progress_bars(unit: str, console: Console | None = None, disable: bool = False) -> Progress:
    """Bars with the number done, how many of them a second, the time that passed and the time left.

    Args:
        unit: what is counted, in the plural, such as "sentences".
        console: where they are shown; standard error when not given.
        disable: show nothing.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
        disable=disable,
    )


class _Speed(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__(table_column=Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {self.unit}/s")
