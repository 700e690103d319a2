"""The remote code that travels with a TALL: the installed package's, compared with a folder's or a repository's."""

import fnmatch
import os
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from transformers.utils import logging

from tall_hf import modeling
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.processing_tall import TALLProcessor


logger = logging.get_logger(__name__)

CODE_PATTERN = "*_tall.py"


def installed_code() -> dict[str, Path]:
    """The installed package's files of remote code, by their names in a repository."""
    return {path.name: path for path in sorted(Path(modeling.__file__).parent.glob(CODE_PATTERN))}


def with_installed_auto_map(config: dict) -> dict:
    """A `config.json` that names the classes and pipelines of the installed package's remote code."""
    ours = TALLConfig()
    return {**config, "auto_map": dict(ours.auto_map), "custom_pipelines": dict(ours.custom_pipelines)}


def with_installed_processor(config: dict) -> dict:
    """A `processor_config.json` that names the processor of the installed package's remote code."""
    module = TALLProcessor.__module__.split(".")[-1]
    return {
        **config,
        "auto_map": {**config.get("auto_map", {}), "AutoProcessor": f"{module}.{TALLProcessor.__name__}"},
    }


def code_in_folder(folder: str | os.PathLike) -> dict[str, str]:
    """The git hash of each file of remote code in a folder."""
    return {path.name: git_hash(path.read_bytes()) for path in Path(folder).glob(CODE_PATTERN)}


def code_in_repository(files: list[RepoFile]) -> dict[str, str]:
    """The git hash of each file of remote code among a repository's files."""
    return {file.path: file.blob_id for file in files if fnmatch.fnmatch(file.path, CODE_PATTERN)}


def differing(hashes: dict[str, str]) -> list[str]:
    """Names of the files that differ from the installed package's, or that only one of both has."""
    ours = {name: git_hash(path.read_bytes()) for name, path in installed_code().items()}
    return sorted(name for name in ours.keys() | hashes.keys() if ours.get(name) != hashes.get(name))


def warn_if_code_differs(
    model: str | os.PathLike, revision: str | None = None, token: str | bool | None = None
) -> None:
    """Log a warning if a TALL's remote code is not the installed package's, and say which of them wins.

    Where `tall_hf` is imported, its own classes load every TALL; the model's remote code is what runs everywhere else.

    Args:
        model: folder or Hub id.
        revision: branch, tag or commit of a Hub id.
        token: for private repositories.
    """
    if Path(model).is_dir():
        hashes = code_in_folder(model)
    else:
        try:
            tree = HfApi(token=token).list_repo_tree(str(model), revision=revision)
            hashes = code_in_repository([file for file in tree if isinstance(file, RepoFile)])
        except (OfflineModeIsEnabled, HTTPError):
            # Without a network the model comes from the cache, which need not hold its remote code.
            return
    if names := differing(hashes):
        logger.warning(
            f"The remote code of {model} differs from the installed tall-hf in {', '.join(names)}. Here the installed classes "
            "are used; a process that does not import tall_hf uses the model's own. `tall update-code` brings the code of "
            "a published model up to date."
        )
