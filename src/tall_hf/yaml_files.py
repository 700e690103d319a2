"""Settings that a user writes as a YAML file."""

import os
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML in which a name may be set once; PyYAML would take its last value."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is set twice", node.start_mark)
        return super().construct_mapping(node, deep)


# No setting is a date, and a folder or a run may be called by one.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_value(text: str) -> Any:
    """What a value by itself says in such a file.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not YAML: {error}") from error


def read_mapping(path: str | os.PathLike) -> dict[str, Any]:
    """What a YAML file sets, by name; an empty file sets nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML mapping, or sets a name twice.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold `name: value` lines, got a {type(values).__name__}.")
    return values
