"""What a checkpoint keeps of its training: which one is whole, and whether a training may go on from it."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tall_hf.files import read_json


SETTINGS_NAME = "training_settings.json"
STATE_NAME = "trainer_state.json"
# What a resumed training must share with its checkpoint to be the same training, of those that its model's arguments have.
RESUMED_ARGUMENTS = (
    "loss_positions",
    "last_n",
    "loss_curriculum",
    "seed",
    "data_seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "alignment_learning_rate",
    "gate_learning_rate",
    "fusion_learning_rate",
    "lora_learning_rate",
    "unfreeze",
    "unfreeze_learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "label_smoothing_factor",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "bf16",
    "fp16",
    "frozen_dtype",
    "metric_for_best_model",
    "greater_is_better",
    "early_stopping_patience",
)


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The last checkpoint in a folder that was written to its end; one that a kill cut short is passed over."""
    complete = {}
    for state in Path(output_dir).glob(f"checkpoint-*/{STATE_NAME}"):  # the Trainer's first process writes it last
        with contextlib.suppress(ValueError):
            step = read_json(state)["global_step"]
            if _has_every_random_state(state.parent):
                complete[step] = str(state.parent)
    return complete[max(complete)] if complete else None


def _has_every_random_state(checkpoint: Path) -> bool:
    """Whether all processes have written theirs; the first does not wait for the others."""
    settings = checkpoint / SETTINGS_NAME
    kept = read_json(settings) if settings.is_file() else {}
    processes = kept.get("processes", 1)  # versions that did not keep it are told by the first process alone
    return processes == 1 or all((checkpoint / f"rng_state_{rank}.pth").is_file() for rank in range(processes))


def check_same_settings(checkpoint: str | os.PathLike, settings: dict, defaults: dict | None = None) -> None:
    """See that a training has the settings of the one that a checkpoint was saved from, if it keeps any.

    Args:
        checkpoint: its folder.
        settings: of the training that would go on from it.
        defaults: what settings were that the checkpoint does not name, since it is older than they are.

    Raises:
        ValueError: it is another training; the message names what differs.
    """
    path = Path(checkpoint, SETTINGS_NAME)
    if not path.is_file():
        return
    then = {**(defaults or {}), **read_json(path)}
    now = json.loads(json.dumps(settings))
    if differing := [name for name in now if now[name] != then.get(name)]:
        changes = "; ".join(f"{name}: {_short(then.get(name))} then, {_short(now[name])} now" for name in differing)
        raise ValueError(
            f"This is not the training that {checkpoint} was saved from: {changes}. Use the same settings, name a new "
            "`output_dir` to begin another training, or set `allow_changed_settings` to go on all the same."
        )


def dataset_fingerprint(dataset, columns: Sequence[str]) -> str | dict[str, str | None] | None:
    """SHA-256 over the token ids in these columns of every row; of several datasets by name, by their names.

    None for a dataset without a length, which is read once only.
    """
    if isinstance(dataset, dict):
        return {name: dataset_fingerprint(part, columns) for name, part in dataset.items()}
    if not hasattr(dataset, "__len__"):
        return None
    digest = hashlib.sha256()
    for row in dataset:
        digest.update(repr([list(row[name]) for name in columns if name in row]).encode())
    return f"sha256:{digest.hexdigest()}"


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
