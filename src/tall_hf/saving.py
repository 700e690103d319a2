"""Write a model and its processor to a folder, whole or not at all, and find it where a training wrote it."""

import fnmatch
import os
from pathlib import Path

from transformers import PreTrainedModel, ProcessorMixin

from tall_hf.files import read_json, staged_folder
from tall_hf.kinds import ModelKind, check_kind, kind_of


# In bytes; larger weights are saved in several files, which need less memory to load and are easier to upload.
MAX_SHARD_SIZE = 5 * 10**9
# Where `tall train` saves, in its `output_dir`.
MODEL_FOLDER = "model"
# What a saved model consists of; a folder with anything else in it is not replaced.
_OWN_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*_tall.py",
    "*_layer_fusion.py",
    "*.spm",
    "*.model",
    "*config.json",
    "*tokens*.json",
    "*vocab*.json",
    "tokenizer.json",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates",
    "source_tokenizer",
    "llm_tokenizer",
    "alignment_pretraining.*",
    "__pycache__",
)


def save(model: PreTrainedModel, processor: ProcessorMixin, folder: str | os.PathLike) -> Path:
    """Save model and processor aside, then put the folder in its place; a model that was saved there is replaced.

    Raises:
        BlockingIOError: another process is saving a model there.
        FileExistsError: `folder` holds something that is not a saved model of this package.
        ValueError: the model has LoRA that is not merged, which only this package could load.
    """
    if getattr(model.config, "lora", None):
        raise ValueError(f"The model has LoRA ({model.config.lora}); merge it first, with `merge_lora(model)`.")
    folder = check_output(folder)
    with staged_folder(folder) as aside:
        model.save_pretrained(aside, max_shard_size=MAX_SHARD_SIZE)
        processor.save_pretrained(aside)
    return folder


def check_output(folder: str | os.PathLike, *also: str) -> Path:
    """`folder` as a path, if a model may be saved there: it is new, empty, or a saved model and nothing else.

    Args:
        folder: where to save.
        also: names of further files that what is saved consists of.

    Raises:
        FileExistsError: it is anything else.
        ValueError: it has no name, as "." has none; it is made beside its place and then renamed.
    """
    folder = Path(folder)
    if folder.name in ("", ".."):
        raise ValueError(
            f"{str(folder)!r} is no name of a folder to save to; name one, such as {str(folder / 'model')!r}."
        )
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or _is_saved_model(folder))):
        raise FileExistsError(f"{folder} exists and is no saved model of this package; name a new or an empty folder.")
    entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in entries if not any(fnmatch.fnmatch(name, pattern) for pattern in (*_OWN_FILES, *also))]
    if foreign:
        raise FileExistsError(
            f"{folder} holds a model, which would be replaced, and also {', '.join(foreign)}; name a new folder, or move "
            "those away."
        )
    return folder


def model_folder(folder: str | os.PathLike, *allowed: ModelKind) -> Path:
    """The folder of a saved model of the kinds allowed: `folder` itself, or its `model/` if a training wrote it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a checkpoint of another kind.
    """
    folder = Path(folder)
    for one in (folder, folder / MODEL_FOLDER):
        if (one / "config.json").is_file():
            check_kind(one, *allowed)
            return one
    raise FileNotFoundError(
        f"There is no saved model in {folder} or its {MODEL_FOLDER}/. A training writes it at its end: finish it with "
        "`--resume`, or name a checkpoint and publish its adapters with `--trainable-only`."
    )


def _is_saved_model(folder: Path) -> bool:
    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        return kind_of(read_json(config)) is not None
    except (ValueError, AttributeError):
        return False
