"""The commands of a sweep, from composing to evaluating, each with a folder named after all that decides what is in it."""

import copy
import functools
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tall_hf.components import ROLES, SWITCHES, check_warm_start
from tall_hf.fingerprints import json_digest
from tall_hf.loading import Component
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.saving import MODEL_FOLDER

from .grid import Grid, Row
from .queue import TALL, Stage


# Options of `tall compose` that decide translator and tokenizers, and with them what `tall prepare` writes.
_PARTS = ("lr_hr", "llm", "hr_lr", "source_lang", "pivot_lang", "dtype", "allow_pickle")
# What `tall compose` calls shorter than TALLConfig.
_SWITCH_NAMES = {"bridge": "source_bridge", "bridge_heads": "bridge_attention_heads"}


@dataclass(frozen=True)
class Trained:
    """One training of the grid, with what comes before and after it.

    Attributes:
        row, seed: which one.
        folder: what `tall train` writes.
        train: its stage.
        align: the stage that pretrains the alignments, if there is one.
        evaluation: what `tall evaluate` writes, and its stage; None where the row is not evaluated.
        evaluate: likewise.
        source: the training that this one starts from, if there is one.
    """

    row: str
    seed: int | None
    folder: Path
    train: Stage
    align: Stage | None = None
    evaluation: Path | None = None
    evaluate: Stage | None = None
    source: "Trained | None" = None

    @property
    def last(self) -> Stage:
        """The stage that makes the training whole."""
        return self.train if self.evaluate is None else self.evaluate


def build_stages(grid: Grid, output: Path) -> tuple[list[Stage], list[Trained]]:
    """All stages of a grid, each after what it needs, and its trainings: the first seed of all rows first.

    What rows have in common is one stage: its folder's name stands for the whole command, and for what that reads. So an
    option that changes concerns the stages behind it, and no others.

    Args:
        grid: as `read_grid` gives it.
        output: folder of everything.
    """
    builder = _Builder(grid, output)
    most = max(len(row.seeds) for row in grid.rows.values())
    for place in range(most):
        for row in grid.rows.values():
            if place < len(row.seeds):
                builder.trained(row, row.seeds[place])
    order = {name: number for number, name in enumerate(grid.rows)}
    trainings = sorted(builder.trainings.values(), key=lambda one: order[one.row])
    return list(builder.stages.values()), trainings


class _Builder:
    def __init__(self, grid: Grid, output: Path):
        self.grid, self.output = grid, output
        self.stages: dict[str, Stage] = {}
        self.trainings: dict[tuple[str, int | None], Trained] = {}
        self._turn = 0

    def trained(self, row: Row, seed: int | None) -> Trained:
        """A training, with its stages added to the queue behind those that they need."""
        if (row.name, seed) in self.trainings:
            return self.trainings[row.name, seed]
        source = None if row.source is None else self.trained(self.grid.rows[row.source], seed)
        about = row.name if seed is None else f"{row.name}, seed {seed}"
        prepare, dataset = self._prepared(row, row.options["prepare"], about)
        align = None
        if source is not None:
            need, model = source.train, source.folder / MODEL_FOLDER
        else:
            need, model = self._composed(row.options["compose"], seed, about)
            if row.options["pretrain_alignment"] is not None:
                arguments = [str(model), "--dataset", str(dataset), *self._seed(seed)]
                arguments += self.grid.arguments("pretrain_alignment", row.options["pretrain_alignment"])
                align, model = self._add("pretrain-alignment", "aligned", arguments, [need, prepare], about)
                need = align
        arguments = ["--model", str(model), "--dataset", str(dataset), "--resume"]
        arguments += self.grid.arguments("train", row.options["train"])
        if seed is not None:
            arguments += ["--set", f"seed={seed}"]
        train, folder = self._add("train", "trained", arguments, [need, prepare], about, "--output_dir")
        evaluate = evaluation = None
        if row.options["evaluate"] is not None:
            evaluate, evaluation = self._evaluated(row, seed, train, folder, about)
        made = Trained(row.name, seed, folder, train, align, evaluation, evaluate, source)
        self.trainings[row.name, seed] = made
        self._turn += 1
        return made

    def _composed(self, options: dict, seed: int | None, about: str) -> tuple[Stage, Path]:
        return self._add(
            "compose", "composed", [*self.grid.arguments("compose", options), *self._seed(seed)], [], about
        )

    def _prepared(self, row: Row, options: dict, about: str) -> tuple[Stage, Path]:
        """Rows to train on are the same for all TALLs with these tokenizers and this translator."""
        first = row
        while first.source is not None:
            first = self.grid.rows[first.source]
        need, model = self._composed(_preparing(first.options["compose"]), None, f"parts of {about}")
        arguments = [*self.grid.arguments("prepare", options), "--model", str(model)]
        return self._add("prepare", "prepared", arguments, [need], about)

    def _evaluated(self, row: Row, seed: int | None, train: Stage, folder: Path, about: str) -> tuple[Stage, Path]:
        options, needs = row.options["evaluate"], [train]
        arguments = [str(folder / MODEL_FOLDER), *self.grid.arguments("evaluate", options), *self._seed(seed)]
        if options.get("exclude_overlap") is not None:
            # Overlap is counted with whole sentences, whatever training rows lose of them.
            prepare, dataset = self._prepared(row, row.options["prepare"] | {"truncation": "last_word"}, about)
            arguments += ["--dataset", str(dataset)]
            needs.append(prepare)
        return self._add("evaluate", "evaluated", [*arguments, "--approach", "tall"], needs, about)

    def _add(
        self, verb: str, kind: str, arguments: list[str], needs: list[Stage], about: str, option: str = "--output"
    ) -> tuple[Stage, Path]:
        """A stage and its folder, which are there already where another row has the same."""
        # Folders of other stages are named after what decides them, so their names say what is read.
        name = json_digest([verb, *(one.removeprefix(f"{self.output}/") for one in arguments)])[:10]
        folder = self.output / kind / name
        key = f"{verb}:{name}"
        if key not in self.stages:
            command = [*TALL, verb, *arguments, option, str(folder)]
            self.stages[key] = Stage(key, command, [need.name for need in needs], turn=self._turn, about=about)
        elif self.stages[key].about != about and not self.stages[key].about.endswith(" and others"):
            self.stages[key].about += " and others"
        return self.stages[key], folder

    def _seed(self, seed: int | None) -> list[str]:
        return [] if seed is None else ["--seed", str(seed)]


def _preparing(options: dict[str, Any]) -> dict[str, Any]:
    """Options of `tall compose` for a TALL that cuts sentences as one of `options` does, and depends on little else."""
    chosen = {name: value for name, value in options.items() if name in _PARTS}
    if options.get("look_ahead"):
        chosen["look_ahead"] = options["look_ahead"]
    if options.get("bridge") == "concat":
        # It leaves the source fewer of the LLM's positions.
        return chosen | {"bridge": "concat"}
    if options.get("bridge") != "none" and _shortened_by_custom_decoder(*(options[role] for role in ROLES)):
        heads = options.get("bridge_heads")
        return chosen | {"bridge": "marian"} | ({} if heads is None else {"bridge_heads": heads})
    # The smallest there is.
    return chosen | {"bridge": "none"}


def check_parts(grid: Grid) -> None:
    """See that the switches of every row go together and with its parts, as far as these are at hand.

    Raises:
        ValueError: they do not.
    """
    command = grid.commands["compose"]
    for row in grid.rows.values():
        options = row.options["compose"]
        parts = None if options is None else _part_configs(*(options[role] for role in ROLES))
        if parts is None:
            continue
        read = command.make_context("compose", grid.arguments("compose", options | {"output": "-"})).params
        switches = {_SWITCH_NAMES.get(name, name): value for name, value in read.items()}
        switches = {name: str(one) if isinstance(one, StrEnum) else one for name, one in switches.items()}
        try:
            config = TALLConfig(
                **copy.deepcopy(parts), **{name: switches[name] for name in SWITCHES if name in switches}
            )
            if read["warm_start"]:
                check_warm_start(config)
        except ValueError as error:
            raise ValueError(f"`compose` of the row {row.name!r}: {error}") from error


@functools.cache
def _part_configs(*specs: str) -> dict[str, Any] | None:
    """The parts' configurations by their names in TALLConfig; None where one cannot be read, which composing will say."""
    try:
        return {
            f"{role}_config": Component.resolve(spec).load(AutoConfig) for role, spec in zip(ROLES, specs, strict=True)
        }
    except (OSError, ValueError):
        return None


@functools.cache
def _shortened_by_custom_decoder(*specs: str) -> bool:
    """Whether custom decoder 1, which has as many positions as the LR→HR translator, has fewer than the parts around it."""
    parts = _part_configs(*specs)
    if parts is None:
        return False
    try:
        config = TALLConfig(**copy.deepcopy(parts), source_bridge="none")
    except ValueError:
        return False
    without = config.max_translation_length
    config.source_bridge = "marian"
    return config.max_translation_length < without
