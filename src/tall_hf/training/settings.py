"""The settings of a training, from a YAML file and flags, each seen to be of the type its field has."""

import dataclasses
import difflib
import os
import types
import typing
from dataclasses import dataclass, field

from tall_hf.yaml_files import read_mapping, read_value

from .arguments import AdapterTrainingArguments


_TRUTH_VALUES = ("true", "false", "yes", "no", "on", "off", "null")  # YAML's


@dataclass(frozen=True)
class RunSettings:
    """What a training by command needs beside its arguments."""

    model: str = field(metadata={"help": "Folder or Hub id of the model to train, as composing it wrote it."})
    dataset: str = field(metadata={"help": "Folder with the prepared rows."})
    attn_implementation: str | None = field(default=None, metadata={"help": "eager or sdpa."})


def read_settings(
    config: str | os.PathLike | None,
    settings_class: type[RunSettings],
    arguments_class: type[AdapterTrainingArguments],
    **overrides,
) -> tuple[RunSettings, AdapterTrainingArguments]:
    """Read settings from a YAML file; `overrides` go before it.

    Args:
        config: a file of fields of both classes.
        settings_class: of model and data.
        arguments_class: of the training.
        overrides: such fields; strings are read as YAML.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML mapping, a key is unknown or missing, or a value is of another type or out of range.
    """
    values = {} if config is None else read_mapping(config)
    for name, value in overrides.items():
        values[name] = read_value(value) if isinstance(value, str) else value
    targets = (settings_class, arguments_class)
    known = {f.name for target in targets for f in dataclasses.fields(target) if f.init}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"See {arguments_class.__name__} for the names there are."
            raise ValueError(f"Unknown setting {name!r}. {hint}")
    for name in ("model", "dataset", "output_dir"):
        if not values.get(name):
            raise ValueError(f"`{name}` is missing: set it in the YAML file, or by --{name}.")
    made = []
    for target in targets:
        hints, own = typing.get_type_hints(target), {f.name for f in dataclasses.fields(target)}
        made.append(
            target(**{name: _typed(name, value, hints[name]) for name, value in values.items() if name in own})
        )
    return tuple(made)


def read_command_line(
    arguments: list[str], settings_class: type[RunSettings], arguments_class: type[AdapterTrainingArguments]
) -> tuple[str | None, dict[str, str]]:
    """Split `[CONFIG.yaml] [--name value | --name=value | --flag | --set name=value] ...` into file and settings.

    Raises:
        ValueError: for two files, or a `--set` without `name=value`.
    """
    config, overrides, rest = None, {}, list(arguments)
    hints = typing.get_type_hints(settings_class) | typing.get_type_hints(arguments_class)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            if config is not None:
                raise ValueError(f"Got {config!r} and {argument!r}: one configuration file is enough.")
            config = argument
            continue
        name, given, value = argument.removeprefix("--").partition("=")
        if not given:
            value = rest.pop(0) if rest and _is_value(hints.get(name.replace("-", "_"), str), rest[0]) else "true"
        if name == "set":
            name, given, value = value.partition("=")
            if not given:
                raise ValueError(f"`--set` takes name=value, got {name!r}.")
        overrides[name.replace("-", "_")] = value
    return config, overrides


def _is_value(hint, argument: str) -> bool:
    """Whether what follows a name of this type belongs to it: a switch takes only a truth value, so as to leave the file."""
    if argument.startswith("--"):
        return False
    is_switch = bool in _allowed_types(hint)
    return not is_switch or argument.lower() in _TRUTH_VALUES


def _typed(name, value, hint):
    """The value, with what YAML misreads (5e-5 as text, `no` as false) put right; ValueError if it is of no type allowed."""
    allowed = _allowed_types(hint)
    if value is False and str in allowed and bool not in allowed:
        return "no"
    if isinstance(value, str) and str not in allowed:
        for number in (int, float):
            if number in allowed:
                try:
                    return number(value)
                except ValueError:
                    continue
    if isinstance(value, dict):
        # Numbers such as 1e-6, which YAML takes for text.
        return {key: float(one) if isinstance(one, str) and _is_number(one) else one for key, one in value.items()}
    fits = any(
        (kind is float and isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)))
        for kind in allowed
    )
    # Enumerations are given by their names, and some hints are not types.
    if not fits and all(kind in (int, float, bool, str, list, dict, types.NoneType) for kind in allowed):
        wanted = " or ".join("nothing" if kind is types.NoneType else kind.__name__ for kind in allowed)
        raise ValueError(f"`{name}` must be {wanted}, got {value!r}.")
    return value


def _allowed_types(hint) -> tuple:
    """The types of a union or of a single hint, `list[str]` as `list`."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return tuple(typing.get_origin(one) or one for one in (typing.get_args(hint) if union else (hint,)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
