"""The remote code that travels with a model: the installed package's, compared with a folder's or a repository's."""

import fnmatch
import os
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import logging

from tall_hf import modeling
from tall_hf.hub_token import check_token
from tall_hf.kinds import ModelKind, kind_of


logger = logging.get_logger(__name__)

# The fields of a configuration that name code to run.
_NAMING = ("auto_map", "custom_pipelines")
# How files of remote code are called.
CODE_PATTERNS = ("*_tall.py", "*_layer_fusion.py")


def installed_code(kind: ModelKind) -> dict[str, Path]:
    """The installed package's files of remote code for a kind of model, by their names in a repository."""
    folder = Path(modeling.__file__).parent
    entries = [folder / f"{name}.py" for name in kind.module_names]
    imported = [path for entry in entries for path in get_relative_import_files(str(entry))]
    return {path.name: path for path in sorted({*entries, *map(Path, imported)})}


def with_installed_auto_map(config: dict) -> dict:
    """A `config.json` that names the classes and pipelines of the installed package's remote code, and no others."""
    ours = kind_of(config).config_class()
    named = {name: dict(getattr(ours, name)) for name in _NAMING if getattr(ours, name, None)}
    return {**_without_code(config), **named}


def with_installed_processor(config: dict, kind: ModelKind) -> dict:
    """A `processor_config.json` or `tokenizer_config.json` that names the installed package's processor, and nothing else."""
    module, name = kind.module_names[-1], kind.processor_class.__name__
    return {**_without_code(config), "auto_map": {"AutoProcessor": f"{module}.{name}"}}


def check_code_named(path_in_repo: str, config, kind: ModelKind) -> None:
    """ValueError for a configuration that names code which is not the installed package's, as in `other/repository--a.B`."""
    files = installed_code(kind)
    if foreign := [one for one in code_named(config) if f"{str(one).partition('.')[0]}.py" not in files]:
        raise ValueError(
            f"{path_in_repo} names the code {foreign[0]!r}, which is not tall-hf's: whoever trusts the model would run it. "
            "Take it out of the file, and publish again."
        )


def code_named(config) -> list:
    """What a configuration, or one inside of it, names as code to run."""
    if isinstance(config, list):
        return [found for one in config for found in code_named(one)]
    if not isinstance(config, dict):
        return []
    found = [one for key, value in config.items() if key not in _NAMING for one in code_named(value)]
    pipelines = config.get("custom_pipelines") or {}
    found += [one.get("impl") if isinstance(one, dict) else one for one in _values(pipelines)]
    return found + [
        one for value in _values(config.get("auto_map") or {}) for one in _values(value) if one is not None
    ]


def _values(value) -> list:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _without_code(config):
    """A configuration, and those inside of it, without what names code."""
    if isinstance(config, dict):
        return {key: _without_code(value) for key, value in config.items() if key not in _NAMING}
    return config


def is_code(name: str) -> bool:
    """Whether a file's name is one of remote code."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in CODE_PATTERNS)


def code_in_folder(folder: str | os.PathLike) -> dict[str, str]:
    """The git hash of each file of remote code in a folder."""
    return {path.name: git_hash(path.read_bytes()) for path in Path(folder).glob("*.py") if is_code(path.name)}


def code_in_repository(files: list[RepoFile]) -> dict[str, str]:
    """The git hash of each file of remote code among a repository's files."""
    return {file.path: file.blob_id for file in files if is_code(file.path)}


def differing(hashes: dict[str, str], kind: ModelKind) -> list[str]:
    """Names of the files that differ from the installed package's, or that only one of both has."""
    ours = {name: git_hash(path.read_bytes()) for name, path in installed_code(kind).items()}
    return sorted(name for name in ours.keys() | hashes.keys() if ours.get(name) != hashes.get(name))


def warn_if_code_differs(
    model: str | os.PathLike, kind: ModelKind, revision: str | None = None, token: str | bool | None = None
) -> None:
    """Log a warning if a model's remote code is not the installed package's, and say which of them wins.

    Where `tall_hf` is imported, its own classes load the model; its remote code is what runs everywhere else.

    Args:
        model: folder or Hub id.
        kind: of the model.
        revision: branch, tag or commit of a Hub id.
        token: for private repositories.
    """
    if Path(model).is_dir():
        hashes = code_in_folder(model)
    else:
        check_token(token)
        try:
            tree = HfApi(token=token).list_repo_tree(str(model), revision=revision)
            hashes = code_in_repository([file for file in tree if isinstance(file, RepoFile)])
        except (OfflineModeIsEnabled, HTTPError):
            # Without a network the model comes from the cache, which need not hold its remote code.
            return
    if names := differing(hashes, kind):
        logger.warning(
            f"The remote code of {model} differs from the installed tall-hf in {', '.join(names)}. Here the installed classes "
            "are used; a process that does not import tall_hf uses the model's own. `tall update-code` brings the code of "
            "a published model up to date."
        )
