"""The grid of a sweep, as a user writes it in YAML: rows that differ in options of the single commands, and their seeds."""

import contextlib
import dataclasses
import difflib
import inspect
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from tall_hf.data.corpus import CorpusSettings
from tall_hf.files import is_plain_name
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.training.alignment_settings import AlignmentSettings
from tall_hf.training.arguments import TALLTrainingArguments
from tall_hf.training.run import TALLRun, TALLRunSettings, check_truncation
from tall_hf.yaml_files import read_mapping, read_value


# The commands whose options a grid sets, as its sections are called; `train` takes the settings of `tall train`.
SECTIONS = ("compose", "prepare", "pretrain_alignment", "train", "evaluate")
# A row may do without these.
_OPTIONAL = ("pretrain_alignment", "evaluate")
_GRID_KEYS = ("seeds", "control", "base", "rows")
_ROW_KEYS = ("like", "from", "axes", "seeds", *SECTIONS)
# What the sweep sets itself.
_SET_HERE = {
    "compose": {"output", "seed"},
    "prepare": {"model", "output"},
    "pretrain_alignment": {"model", "dataset", "output", "seed"},
    "train": {"model", "dataset", "output_dir", "seed"},
    "evaluate": {"models", "output", "dataset", "approach", "seed"},
}
# Of `tall evaluate`, for approaches other than the TALL.
_FOR_RIVALS = {
    "llm",
    "hr_lr",
    "translator_only",
    "budget_steps",
    "budget_batch_size",
    "budget_group_by_length",
    "soft_prompt_sentences",
    "user_approach",
}
_VARIABLE = re.compile(r"\$\w+|\$\{[^}]*\}")


@dataclass(frozen=True)
class Row:
    """A TALL of the grid, to be trained once for each seed.

    Attributes:
        name: as the report calls it.
        seeds: of everything that is drawn; None alone leaves each command its own.
        source: name of the row whose trained model this one starts from, with the same seed; None if it is composed.
        options: for each of `SECTIONS` the options of that command by name; None for one that is left out.
    """

    name: str
    seeds: tuple[int | None, ...]
    source: str | None
    options: dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Grid:
    """What a sweep runs.

    Attributes:
        rows: by name, in the order of the file.
        control: name of the row that the others are compared with.
        commands: for each of `SECTIONS` but `train` its command, as typer makes it.
    """

    rows: dict[str, Row]
    control: str
    commands: Mapping[str, Any]

    def arguments(self, section: str, options: dict[str, Any]) -> list[str]:
        """Options of a section as its command takes them, always in the same order."""
        if section == "train":
            return [one for name in sorted(options) for one in ("--set", f"{name}={_as_yaml(options[name])}")]
        positional, named = [], []
        for parameter in self.commands[section].params:
            value = options.get(parameter.name)
            for one in value if isinstance(value, list) else [] if value is None else [value]:
                if isinstance(one, bool):
                    named += (parameter.opts if one else parameter.secondary_opts)[:1]
                elif parameter.opts[0].startswith("-"):
                    named += [parameter.opts[0], str(one)]
                else:
                    positional.append(str(one))
        return positional + named


def read_grid(path: str | os.PathLike, commands: Mapping[str, Any]) -> Grid:
    """Read a grid, with what rows take over from `base` and from each other filled in, and check every option.

    Args:
        path: the YAML file.
        commands: for each of `SECTIONS` but `train` its command, as typer makes it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no grid; the message says where, what was expected, and what to do.
    """
    content = _with_variables(read_mapping(path), str(path))
    _check_keys(content, _GRID_KEYS, f"{path}")
    base = _mapping(content.get("base"), f"{path}: `base`")
    _check_keys(base, SECTIONS, f"{path}: `base`")
    written = _mapping(content.get("rows"), f"{path}: `rows`")
    if not written:
        raise ValueError(f"{path} has no rows; write at least one under `rows:`, as `name: {{}}`.")
    named, groups = _expand(written, str(path))
    seeds = _seeds(content.get("seeds"), f"{path}: `seeds`")
    reader = _Reader(str(path), base, named, groups, seeds)
    grid = Grid({name: reader.row(name) for name in named}, content.get("control", next(iter(named))), commands)
    reader.check_named(grid.control, "`control`")
    for row in grid.rows.values():
        reader.check_source(row, grid.rows)
        for section in SECTIONS:
            if row.options[section] is not None:
                _check_options(grid, section, row.options[section], f"{path}: `{section}` of the row {row.name!r}")
        truncation = row.options["prepare"].get("truncation") or CorpusSettings.truncation
        positions = row.options["train"].get("loss_positions", TALLTrainingArguments.loss_positions)
        check_truncation(f"{path}: the text of the row {row.name!r}", truncation, positions)
    return grid


def check_files(grid: Grid) -> None:
    """See that the texts of all rows are there, before hours of training.

    Raises:
        FileNotFoundError: one is not.
    """
    for row in grid.rows.values():
        for section in ("prepare", "evaluate"):
            text = (row.options[section] or {}).get("text")
            if text is not None and not os.path.exists(text):
                raise FileNotFoundError(f"There is no file {text}, the `text` of `{section}` of the row {row.name!r}.")


class _Reader:
    """The rows as written, from which whole ones are made."""

    def __init__(self, path: str, base: dict, rows: dict[str, dict], groups: dict[str, list[str]], seeds):
        self.path, self.base, self.rows, self.groups, self.seeds = path, base, rows, groups, seeds
        self._sections = {section: _own(base, section, None, f"{path}: `base`") for section in SECTIONS}

    def row(self, name: str) -> Row:
        settings = self._settings(name, ())
        source, options = settings["from"], {section: settings[section] for section in SECTIONS}
        if source is not None:
            if options["pretrain_alignment"] is not None:
                raise ValueError(
                    f"{self.path}: the row {name!r} starts from {source!r}, whose alignments are trained; set "
                    "`pretrain_alignment: false` in it."
                )
            options["compose"] = None
        elif options["pretrain_alignment"] is not None:
            kind = options["compose"].get("alignment_type") or TALLConfig.alignment_type
            objective = options["pretrain_alignment"].get("objective") or AlignmentSettings.objective
            if kind != "mlp" and (kind, objective) != ("linear", "embeddings"):
                raise ValueError(
                    f"{self.path}: the row {name!r} pretrains alignments of the type {kind!r} by the objective "
                    f"{objective!r}, and only those of the type 'mlp' are (and 'linear' ones by 'embeddings'); set "
                    "`pretrain_alignment: false` in it."
                )
        return Row(name, settings["seeds"], source, options)

    def _settings(self, name: str, takers: tuple[str, ...]) -> dict[str, Any]:
        """All that a row has, its own and what it takes over; `takers` are the rows that take over from it."""
        if name in takers:
            circle = " → ".join((*takers[takers.index(name) :], name))
            raise ValueError(f"{self.path}: rows take over from each other in a circle by `like`: {circle}.")
        own, where = self.rows[name], f"{self.path}: the row {name!r}"
        settings = {"from": None, "seeds": self.seeds, **self._sections}
        if own.get("like") is not None:
            self.check_named(own["like"], f"`like` of the row {name!r}")
            settings = dict(self._settings(own["like"], (*takers, name)))
        if own.get("from") is not None:
            if "compose" in own:
                raise ValueError(
                    f"{where} starts from {own['from']!r}, so it has no `compose` of its own: leave it out."
                )
            settings["from"] = own["from"]
        elif "compose" in own and settings["from"] is not None:
            raise ValueError(
                f"{where} starts from {settings['from']!r} by `like`, so it has no `compose`: leave it out."
            )
        if "seeds" in own:
            settings["seeds"] = _seeds(own["seeds"], f"{self.path}: `seeds` of the row {name!r}")
        for section in SECTIONS:
            settings[section] = _own(own, section, settings[section], where)
        return settings

    def check_named(self, name: Any, where: str) -> None:
        if isinstance(name, str) and name in self.groups:
            raise ValueError(
                f"{self.path}: {where} names {name!r}, which has axes and so is several rows: name one of "
                f"{', '.join(self.groups[name])}."
            )
        if not isinstance(name, str) or name not in self.rows:
            raise ValueError(f"{self.path}: {where} names {name!r}, which is no row.{_near(name, self.rows)}")

    def check_source(self, row: Row, rows: dict[str, Row]) -> None:
        """See that what a row starts from is there, for each of its seeds, and does not start from the row itself."""
        chain = [row.name]
        while (source := rows[chain[-1]].source) is not None:
            self.check_named(source, f"`from` of the row {chain[-1]!r}")
            chain.append(source)
            if source in chain[:-1]:
                circle = " → ".join(chain[chain.index(source) :])
                raise ValueError(f"{self.path}: rows start from each other in a circle by `from`: {circle}.")
        if len(chain) > 1 and (lacking := [seed for seed in row.seeds if seed not in rows[chain[1]].seeds]):
            raise ValueError(
                f"{self.path}: the row {row.name!r} starts from {chain[1]!r} with the same seed, but that one is not "
                f"trained with seed {lacking[0]}; give both the same `seeds`."
            )


def _own(written: dict, section: str, taken_over: dict | None, where: str) -> dict | None:
    """A section with what is written of it put over what is taken over."""
    if section not in written:
        return {} if taken_over is None and section not in _OPTIONAL else taken_over
    value = written[section]
    if section in _OPTIONAL and isinstance(value, bool | None):
        return (taken_over or {}) if value else None
    return (taken_over or {}) | {
        str(name).replace("-", "_"): one for name, one in _mapping(value, f"{where}: `{section}`").items()
    }


def _expand(written: dict, path: str) -> tuple[dict[str, dict], dict[str, list[str]]]:
    """Rows with axes replaced by a row for each combination of values, and the names of these by that of their row."""
    rows, groups = {}, {}
    for name, row in written.items():
        where = f"{path}: the row {name!r}"
        row = _mapping(row, where)
        _check_keys(row, _ROW_KEYS, where)
        axes = _mapping(row.get("axes"), f"{where}: `axes`")
        for axis, values in axes.items():
            if not (str(axis).partition(".")[0] in SECTIONS and str(axis).partition(".")[2]):
                raise ValueError(f"{where}: an axis is written SECTION.OPTION, such as compose.bridge, got {axis!r}.")
            if not isinstance(values, list) or not values:
                raise ValueError(f"{where}: the axis {axis!r} must have a list of values, got {values!r}.")
        plain = {key: value for key, value in row.items() if key != "axes"}
        for values in itertools.product(*axes.values()):
            made = {key: dict(value) if isinstance(value, dict) else value for key, value in plain.items()}
            for axis, value in zip(axes, values, strict=True):
                section, _, option = axis.partition(".")
                made[section] = _mapping(made.get(section), where) | {option: value}
            full_name = "_".join((str(name), *map(_label, values)))
            if not is_plain_name(full_name):
                raise ValueError(
                    f"{path}: a row's name is made of letters, digits, '_', '.', '+' and '-', got {full_name!r}."
                )
            if full_name in rows:
                raise ValueError(f"{path}: two rows are called {full_name!r}; give each a name of its own.")
            rows[full_name] = made
            if axes:
                groups.setdefault(str(name), []).append(full_name)
    return rows, groups


def _as_yaml(value: Any) -> str:
    """A value as `tall train --set` reads it back; a text as it is, where that is how it is read."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # a regular expression may be no YAML
            if read_value(value) == value:
                return value
    return json.dumps(value)


def _label(value: Any) -> str:
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text.lower() if isinstance(value, bool | None) else text)


def _seeds(value: Any, where: str) -> tuple[int | None, ...]:
    if value is None:
        return (None,)
    is_list = isinstance(value, list) and value and all(type(seed) is int and 0 <= seed < 2**32 for seed in value)
    if not is_list or len(set(value)) < len(value):
        raise ValueError(
            f"{where} must be a list of different whole numbers below 2**32, such as [0, 1, 2], got {value!r}."
        )
    return tuple(value)


def _check_options(grid: Grid, section: str, options: dict[str, Any], where: str) -> None:
    """See that a section has options that its command knows, with values that it takes."""
    known = {each: _known(grid, each) for each in SECTIONS}
    for name in options:
        if name in _SET_HERE[section]:
            raise ValueError(f"{where} sets `{name}`, which the sweep sets itself; leave it out.")
        if name == "token":
            raise ValueError(f"{where} sets `token`, which would be written into records; set HF_TOKEN instead.")
        if section == "evaluate" and name in _FOR_RIVALS:
            raise ValueError(
                f"{where} sets `{name}`, but a sweep asks the TALLs alone; compare others by `tall evaluate`."
            )
        if name not in known[section]:
            others = [each for each in SECTIONS if name in known[each]]
            hint = f" It is one of `{others[0]}`." if others else _near(name, known[section])
            raise ValueError(f"{where} has an unknown option {name!r}.{hint}")
    if section == "train":
        read = TALLRun.read_command_line(grid.arguments("train", options))[1]
        try:
            TALLRun(*TALLRun.read_settings(None, model="m", dataset="d", output_dir="o", **read))
        except ImportError as error:
            raise ImportError(f"{where}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return
    for parameter in grid.commands[section].params:
        _check_shape(parameter, options.get(parameter.name), where)
        if parameter.required and parameter.name not in _SET_HERE[section] and options.get(parameter.name) is None:
            raise ValueError(f"{where} lacks `{parameter.name}`; set it there, or for all rows in `base`.")
    # The command's own parser, with something for what the sweep sets.
    needed = {
        one.name: "-" for one in grid.commands[section].params if one.required and one.name in _SET_HERE[section]
    }
    try:
        read = grid.commands[section].make_context(section, grid.arguments(section, options | needed)).params
        if section == "prepare":
            CorpusSettings(
                **{one.name: read[one.name] for one in dataclasses.fields(CorpusSettings) if one.name in read}
            )
    except typer.BadParameter as error:
        raise ValueError(f"{where}: {error.format_message()}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_shape(parameter, value: Any, where: str) -> None:
    """See that a flag is true or false, and that several values are given only where the command takes several."""
    is_flag = getattr(parameter, "is_flag", False)
    if value is not None and (isinstance(value, bool) != is_flag or isinstance(value, dict)):
        expected = "true or false" if is_flag else "a value"
        raise ValueError(f"{where}: `{parameter.name}` must be {expected}, got {value!r}.")
    if isinstance(value, list) and not parameter.multiple:
        raise ValueError(
            f"{where}: `{parameter.name}` takes one value, got {value!r}; for a row each write it in `axes`."
        )


def _known(grid: Grid, section: str) -> list[str]:
    if section != "train":
        return [parameter.name for parameter in grid.commands[section].params if parameter.name != "help"]
    return [name for kind in (TALLRunSettings, TALLTrainingArguments) for name in inspect.signature(kind).parameters]


def _check_keys(written: dict, known: Sequence[str], where: str) -> None:
    for name in written:
        if name not in known:
            raise ValueError(f"{where} has an unknown entry {name!r}.{_near(name, known)}")


def _near(name: Any, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" There are {', '.join(known)}."


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold `name: value` lines, got {value!r}.")
    return value


def _with_variables(value: Any, path: str) -> Any:
    """The same with environment variables in texts replaced by what they hold."""
    if isinstance(value, dict):
        return {name: _with_variables(one, path) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_variables(one, path) for one in value]
    if not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    if left := _VARIABLE.search(expanded):
        raise ValueError(
            f"{path}: {value!r} names the environment variable {left[0].strip('${}')!r}, which is not set; "
            f"`export {left[0].strip('${}')}=...` first."
        )
    return expanded
