"""What a training step of each row of a sweep takes, side by side in one process, so that equal steps can be read as equal time.

    python -m benchmarks.sweep_steps examples/sweeps/microworld.yaml --output outputs/microworld-sweep

Asks the models and data that `tall sweep` has composed and prepared there, and leaves them as they are. Step by step all rows take
one in turn, each with the first batch of its training; seconds are the median's of one training step by the clock: forward,
backward, clipping and optimizer. The trainings of a sweep themselves run side by side on shared cores, where the same one took up to
half as long again. A curriculum is at its beginning here.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from tqdm.auto import tqdm
from typer.main import get_command

from benchmarks import meters
from benchmarks.options import count
from tall_hf.cli.app import app
from tall_hf.files import write_json
from tall_hf.measuring.tables import rich_table
from tall_hf.sweep.grid import SECTIONS, read_grid
from tall_hf.sweep.queue import is_done
from tall_hf.sweep.stages import Trained, build_stages
from tall_hf.training.run import TALLRun


class Steps:
    """Training steps of one row, as its `tall train` makes them.

    Args:
        trained: the row's training with one seed.
        folder: for what the trainer writes.
    """

    def __init__(self, trained: Trained, folder: Path):
        _, overrides = TALLRun.read_command_line([one for one in trained.train.command[4:] if one != "--resume"])
        overrides |= {"output_dir": str(folder), "report_to": "none"}
        run = TALLRun(*TALLRun.read_settings(None, **overrides))
        model, processor = run.kind.load(run.settings.model)
        splits = run.load_rows(model, processor)
        run.add_trained_parts(model)
        self.trainer = run.trainer_class(
            model=model,
            args=run.args,
            train_dataset=splits["train"],
            eval_dataset=splits["validation"],
            processing_class=processor,
        )
        self.trainer.create_optimizer()
        self.model = self.trainer.accelerator.prepare(self.trainer.model).train()
        self.batch = next(iter(self.trainer.get_train_dataloader()))

    def __call__(self) -> None:
        """Take one."""
        inputs = {name: value.clone() for name, value in self.batch.items()}
        self.trainer.compute_loss(self.model, inputs).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.trainer.args.max_grad_norm)
        self.trainer.optimizer.step()
        self.model.zero_grad()


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="YAML file of the sweep")
    parser.add_argument("--output", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--repeats", type=count, default=12, help="steps of each row that count; one more does not")
    parser.add_argument("--threads", type=count, default=1)
    parser.add_argument("--json", type=Path, help="file for the seconds of a step by row")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    commands = get_command(app).commands
    grid = read_grid(options.grid, {name: commands[name.replace("_", "-")] for name in SECTIONS if name != "train"})
    rows: dict[str, Steps] = {}
    with tempfile.TemporaryDirectory() as folder:
        stages, trainings = build_stages(grid, options.output)
        done = {stage.name for stage in stages if is_done(options.output, stage)}
        first = [trained for trained in trainings if trained.seed == grid.rows[trained.row].seeds[0]]
        control = next(trained for trained in first if trained.row == grid.control)
        if not done.issuperset(control.train.needs):
            parser.error(
                f"{options.output}: the control, {grid.control}, is not composed and prepared there yet; run tall sweep first."
            )
        for trained in tqdm(first, desc="Loading rows"):
            if done.issuperset(trained.train.needs):
                rows[trained.row] = Steps(trained, Path(folder, trained.row))
            else:
                tqdm.write(f"Left out: {trained.row} is not composed and prepared yet.")
        taken: dict[str, list[float]] = {name: [] for name in rows}
        for turn in tqdm(range(1 + options.repeats), desc="Steps of all rows"):
            for name, step in rows.items():
                _, seconds = meters.timed(step)
                if turn:
                    taken[name].append(seconds)
    found = {name: statistics.median(seconds) for name, seconds in taken.items()}
    control = found[grid.control]
    head = ["row", "ms a step", f"to {grid.control}"]
    cells = [[name, f"{1e3 * one:.0f}", f"{one / control:.2f}"] for name, one in found.items()]
    Console().print(rich_table(f"{options.threads} threads, {options.repeats} steps", head, cells))
    if options.json:
        write_json(options.json, {"machine": meters.machine("cpu"), "seconds": found})
    return found


if __name__ == "__main__":
    main()
