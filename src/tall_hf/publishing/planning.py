"""Which files of a training go up to the Hub: an allow-list, and configurations without the names of local folders."""

import fnmatch
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import ModelCard
from transformers.utils import logging

from tall_hf import hub_cards
from tall_hf.files import read_json
from tall_hf.kinds import KINDS, TALL, ModelKind, kind_of
from tall_hf.modeling.saved_weights_tall import INDEX_NAME, WEIGHTS_NAME
from tall_hf.saving import MAX_SHARD_SIZE, model_folder
from tall_hf.training.light import PINS_NAME, save_light

from .remote_code import (
    CODE_PATTERNS,
    check_code_named,
    code_in_folder,
    differing,
    installed_code,
    with_installed_auto_map,
    with_installed_processor,
)


logger = logging.get_logger(__name__)

_CONFIG = "config.json"
_PROCESSOR_CONFIG = "processor_config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
# From hub_cards/, with a TALL: for Inference Endpoints the handler and what it needs, for people an example.
_ACCOMPANYING = ("handler.py", "requirements.txt", "examples/next_words.py")
_SHARDS = "model-*-of-*.safetensors"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "*vocab.json",
    "vocab.txt",
    "*.spm",
    "*.model",
)
_TOKENIZER_FOLDERS = {name for kind in KINDS for name in kind.tokenizer_folders}
# All that publishing ever writes to a repository, apart from the card; what else is there is left alone.
_PUBLISHED = (
    _CONFIG,
    "generation_config.json",
    _PROCESSOR_CONFIG,
    PINS_NAME,
    *_ACCOMPANYING,
    WEIGHTS_NAME,
    _SHARDS,
    INDEX_NAME,
    *CODE_PATTERNS,
    *_TOKENIZER_FILES,
)


@dataclass(frozen=True)
class PublishedFile:
    """A file to publish: its path in the repository, its size in bytes, and where its content is, or the content."""

    path_in_repo: str
    size: int
    source: Path | bytes


def plan(
    folder: str | os.PathLike, *, trainable_only: bool = False, card: ModelCard | str | None = None
) -> list[PublishedFile]:
    """The files that `publish` uploads of a trained model. Nothing is written, and no network is used.

    Weights, configurations and tokenizers come from the folder, the remote code from the installed package: it is what the
    local model runs, and what the published one is compared with. Everything else in the folder stays there.

    Args:
        folder: what a training wrote, its `model/`, or any saved model; with `trainable_only` also a light checkpoint.
        trainable_only: the adapters alone, with the pinned names and revisions of the frozen parts.
        card: the README.md; without it none is planned.

    Returns:
        The files in the order of their paths.

    Raises:
        FileNotFoundError: there is no saved model, or a file of it is missing.
        ValueError: it is a checkpoint of another kind, it has LoRA that is not merged, a file of it is a link out of the folder,
            it is light and `trainable_only` is not set, or `trainable_only` is set and a frozen part is not the one of a pinned
            Hub revision.
    """
    folder = model_folder(folder)
    config = read_config(folder)
    kind = kind_of(config)
    if config["lora"]:
        raise ValueError(
            f"{folder} has LoRA that is not merged: load it with `load_lora`, `merge_lora` it, and save it."
        )
    is_light = config["trainable_only"]
    if is_light and not trainable_only:
        raise ValueError(
            f"{folder} holds the trained adapters only. Publish it as such, with `--trainable-only` (`trainable_only=True`), "
            "or load it with `tall_hf.load_light` and save it whole first."
        )
    if trainable_only:
        _check_pinned(config, folder)
    if names := differing(code_in_folder(folder), kind):
        logger.warning(
            f"The remote code in {folder} differs from the installed tall-hf in {', '.join(names)}. The installed one is "
            "published: it is what the model runs here."
        )
    contents = _light_contents(folder, kind) if trainable_only and not is_light else _contents(folder, kind, is_light)
    contents |= installed_code(kind)
    if not trainable_only:  # without tall-hf nobody can load the light form
        contents |= accompanying_files(kind)
    if card is not None:
        contents["README.md"] = str(card).encode()
    return [
        PublishedFile(path, len(source) if isinstance(source, bytes) else source.stat().st_size, source)
        for path, source in sorted(contents.items())
    ]


def read_config(folder: Path) -> dict:
    """A saved model's `config.json`, in which what `compose` and light checkpoints may leave out is filled in."""
    return {"lora": None, "trainable_only": False, "components": None, **read_json(folder / _CONFIG)}


def accompanying_files(kind: ModelKind) -> dict[str, Path]:
    """What goes up beside the remote code and runs by it, by its path in a repository."""
    if kind is not TALL:
        return {}
    return {name: Path(hub_cards.__file__).parent / name for name in _ACCOMPANYING}


def is_published(path_in_repo: str) -> bool:
    """Whether publishing writes files of this path, and so may delete one that a new version no longer has."""
    path = PurePosixPath(path_in_repo)
    if path_in_repo in _ACCOMPANYING:
        return True
    if path.parent.name:
        return str(path.parent) in _TOKENIZER_FOLDERS and _matches(path.name, _TOKENIZER_FILES)
    return _matches(path.name, _PUBLISHED)


def _check_pinned(config: dict, folder: Path) -> None:
    """Refuse to publish adapters without frozen parts that everybody can fetch: ValueError names the part."""
    for role in kind_of(config).roles:
        part = (config["components"] or {}).get(role) or {}
        if not part.get("revision"):
            raise ValueError(
                f"The part {role!r} of {folder} is no pinned revision on the Hub but {part.get('name_or_path') or 'unknown'}, "
                "so nobody else could load adapters without it. Publish the whole model, without `--trainable-only`."
            )
        if part.get("merged_lora") or part.get("unfrozen"):
            how = (
                "LoRA was merged into it" if part.get("merged_lora") else f"{', '.join(part['unfrozen'])} was trained"
            )
            raise ValueError(
                f"The part {role!r} of {folder} is no longer what {part['name_or_path']} holds: {how}. "
                "Publish the whole model, without `--trainable-only`."
            )


def _contents(folder: Path, kind: ModelKind, is_light: bool) -> dict[str, Path | bytes]:
    """What is allowed of a saved model, by its path in the repository."""
    wanted = [_CONFIG, _PROCESSOR_CONFIG, *_weights(folder)] + [PINS_NAME] * is_light
    contents = {name: folder / name for name in wanted}
    contents |= {name: folder / name for name in ("generation_config.json",) if (folder / name).is_file()}
    for inside in ("", *kind.tokenizer_folders):
        found = {path.name: path for path in (folder / inside).glob("*") if _matches(path.name, _TOKENIZER_FILES)}
        if not found:
            wanted.append(str(PurePosixPath(inside, _TOKENIZER_CONFIG)))
        contents |= {str(PurePosixPath(inside, name)): path for name, path in found.items()}
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} is not a whole {kind.name}: {', '.join(missing)} is missing. Save the model and its processor there again."
        )
    _check_links(folder, contents)
    contents[_CONFIG] = _json(_without_local_names(with_installed_auto_map(read_json(folder / _CONFIG))))
    for path in contents:
        if PurePosixPath(path).name in (_PROCESSOR_CONFIG, _TOKENIZER_CONFIG):
            # A model that was composed by an earlier version may name there the code of a part's repository.
            contents[path] = _json(with_installed_processor(read_json(folder / path), kind))
    for path, one in contents.items():
        if path.endswith("config.json"):
            check_code_named(path, json.loads(one) if isinstance(one, bytes) else read_json(one), kind)
    return contents


def _check_links(folder: Path, contents: dict[str, Path]) -> None:
    """Refuse a file that is a link to elsewhere: a folder of somebody else's would publish files of this machine."""
    inside = [folder.resolve()]
    if inside[0].parent.name == "snapshots":  # in the cache of the Hub, which keeps the content of files beside it
        inside.append(inside[0].parent.with_name("blobs"))
    for name, path in contents.items():
        if not any(path.resolve().is_relative_to(one) for one in inside):
            raise ValueError(
                f"{name} of {folder} is a link to {path.resolve()}, outside of that folder. If it belongs to the model, put a copy "
                "in its place."
            )


def _weights(folder: Path) -> list[str]:
    """Names of the weights: those of the index, or the one file, which `from_pretrained` prefers."""
    whole, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    if index.is_file() and not whole.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
        if wrong := [name for name in names if not _matches(name, (_SHARDS,)) or PurePosixPath(name).name != name]:
            raise ValueError(
                f"{index} names {wrong[0]!r}, which is no file of weights ({_SHARDS}) beside it; save the model again."
            )
        return [INDEX_NAME, *names]
    if whole.is_file() and whole.stat().st_size > 1.01 * MAX_SHARD_SIZE:
        logger.warning(
            f"{whole} has {whole.stat().st_size / 1e9:.1f} GB in one file. Saved once more by `tall_hf.publishing.save` it is "
            f"published in files of {MAX_SHARD_SIZE / 1e9:.0f} GB, which need less memory to load."
        )
    return [WEIGHTS_NAME]


def _light_contents(folder: Path, kind: ModelKind) -> dict[str, Path | bytes]:
    """What a light checkpoint of a whole model holds, read into memory."""
    with tempfile.TemporaryDirectory() as aside:
        light = save_light(*kind.load(folder), Path(aside, "light"))
        contents = _contents(light, kind, is_light=True)
        return {path: one if isinstance(one, bytes) else one.read_bytes() for path, one in contents.items()}


def _without_local_names(config: dict) -> dict:
    """A `config.json` in which a part that was a local folder has no name: nobody else has that folder."""
    components = config.get("components") or {}
    local = {role for role in kind_of(config).roles if not components.get(role, {}).get("revision")}
    parts = {
        f"{role}_config": _without_names(config[f"{role}_config"]) for role in local if f"{role}_config" in config
    }
    nameless = {role: {**part, "name_or_path": None} for role, part in components.items() if role in local}
    return {**config, **parts, "components": {**components, **nameless} or None}


def _without_names(config):
    """A part's configuration, and those inside of it, without `_name_or_path`."""
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "_name_or_path"}
    return config


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _json(value: dict) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
