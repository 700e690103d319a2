"""The command `tall sweep`: a grid of trainings from one YAML file, as a queue that goes on where it was stopped."""

import contextlib
import fnmatch
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.main import get_command

from tall_hf.files import full_disk_named, locked
from tall_hf.measuring.statistics import load_metric
from tall_hf.measuring.tables import rich_table
from tall_hf.sweep.grid import SECTIONS, Grid, check_files, read_grid
from tall_hf.sweep.launch import Launch, join_launch
from tall_hf.sweep.queue import Stage, is_done, needed_for, read_record, run_queue, shown, state_of
from tall_hf.sweep.report import REPORT_NAME, write_report
from tall_hf.sweep.stages import Trained, build_stages, check_parts

from .errors import user_errors


def register(app: typer.Typer):
    """Add the command to `app`."""

    @app.command()
    def sweep(
        grid: Annotated[
            Path, typer.Argument(metavar="GRID.yaml", help="The rows; see examples/sweeps and docs/guide/sweep.md.")
        ],
        output: Annotated[Path, typer.Option(help="Folder of everything; a killed command goes on there.")],
        only: Annotated[
            list[str] | None,
            typer.Option(metavar="ROW", help="Rows to run, as a name or a pattern, with what they need; repeatable."),
        ] = None,
        jobs: Annotated[int, typer.Option(min=1, help="Stages at a time, each with its share of the cores.")] = 1,
        report: Annotated[bool, typer.Option("--report", help="Only compare what is there.")] = False,
        list_: Annotated[bool, typer.Option("--list", help="Only show what is done and what is missing.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the commands that are not done.")] = False,
    ):
        """Train the rows of a grid, each with its seeds, and compare them: one table and one plot.

        Each stage is a command of its own. Killed at any point, the same command goes on where it stopped; a stage runs again
        if an option that concerns it has changed. A row that fails leaves the others, and the command ends with exit code 1.
        Under `torchrun` or `accelerate launch` the processes share the rows.

        Example: tall sweep examples/sweeps/microworld.yaml --output outputs/sweep
        """
        console = Console()
        with user_errors():
            launch = Launch() if report or list_ or dry_run else join_launch()
            commands = get_command(app).commands
            read = read_grid(grid, {name: commands[name.replace("_", "-")] for name in SECTIONS if name != "train"})
            queue, trainings = build_stages(read, output)
            if only:
                queue = needed_for(queue, _wanted(trainings, only, read))
            if list_:
                console.print(_table(queue, output))
                return
            if not report:
                check_parts(read)
            if dry_run:
                for stage in queue:
                    if not is_done(output, stage):
                        typer.echo(f"# {stage.name} ({stage.about})\n{shown(stage.command)}")
                return
            if not report:
                if any(trained.evaluate is not None for trained in trainings):
                    load_metric()  # what is missing is missed now, not after hours of training
                check_files(read)
                undone = _run(queue, output, jobs, launch)
            if launch.rank == 0:
                with full_disk_named(output):
                    write_report(read, trainings, output, console)
                typer.echo(f"Saved to {output}: {REPORT_NAME}, report.csv, report.json, report.png.")
        if not report and undone:
            if launch.rank == 0:
                names = ", ".join(f"{stage.name} ({stage.about})" for stage in queue if stage.name in undone)
                typer.secho(f"Not done: {names}. The same command tries them again.", err=True, fg="red")
            raise typer.Exit(1)


def _run(queue: list[Stage], output: Path, jobs: int, launch: Launch) -> list[str]:
    # A queue that is stopped stops its commands.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    output.mkdir(parents=True, exist_ok=True)
    if launch.rank == 0:
        done = sum(is_done(output, stage) for stage in queue)
        typer.echo(f"{done} of {len(queue)} stages are done. What they print goes to {output / 'logs'}.")
    try:
        with locked(output) if launch.rank == 0 else contextlib.nullcontext(), full_disk_named(output):
            return run_queue(output, queue, jobs, launch)
    finally:
        signal.signal(signal.SIGTERM, before)


def _wanted(trainings: list[Trained], patterns: list[str], grid: Grid) -> list[str]:
    found = {pattern: fnmatch.filter(grid.rows, pattern) for pattern in patterns}
    if unknown := [pattern for pattern, rows in found.items() if not rows]:
        raise ValueError(f"No row is called {' or '.join(unknown)}; there are {', '.join(grid.rows)}.")
    return [trained.last.name for trained in trainings if any(trained.row in rows for rows in found.values())]


def _table(queue: list[Stage], output: Path):
    rows = []
    for stage in queue:
        seconds = read_record(output, stage).get("seconds")
        state = state_of(output, stage)
        folder = Path(stage.command[-1]).relative_to(output)
        rows.append([stage.name, stage.about, state, "" if seconds is None else f"{seconds:,.0f}", str(folder)])
    table = rich_table("Stages", ["stage", "for", "state", "seconds", "folder"], rows)
    table.columns[-1].no_wrap = True
    return table
