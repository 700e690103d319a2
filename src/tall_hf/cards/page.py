"""What the pages of all models share: parts and their licences, settings of a training, and how values are shown."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from tall_hf.kinds import kind_of

from .evidence import Training
from .licenses import License, local_licenses
from .markup import code, escape, link, percent, table
from .parts import ROLE_TITLES, Part


# Settings of a training that a reader may want; the others are in training_settings.json.
_SETTINGS = {
    "max_steps": "steps",
    "batch_size": "sentences a step",
    "learning_rate": "learning rate",
    "alignment_learning_rate": "learning rate of the alignments",
    "gate_learning_rate": "learning rate of the gate",
    "fusion_learning_rate": "learning rate of the source fusion",
    "lora_learning_rate": "learning rate of LoRA",
    "unfreeze_learning_rate": "learning rate of the unfrozen layers",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warm-up",
    "weight_decay": "weight decay",
    "optim": "optimizer",
    "label_smoothing_factor": "label smoothing",
    "loss_curriculum": "curriculum of loss positions",
    "loss_positions": "loss on",
    "seed": "seed",
    "processes": "processes",
}
_LOSS_POSITIONS = {
    "last_token": "the last token",
    "last_word": "the last word",
    "last_n": "the last {last_n} tokens",
    "continuation": "every word that the source side has not read",
    "all": "every word",
}


def licenses_by_role(parts: Mapping[str, Part], given: Mapping[str, str] | None) -> dict[str, str | None]:
    """The licence of each part by role, as far as the publisher or the part itself says; None where nobody does.

    Raises:
        ValueError: one is given of a part that the model has not.
    """
    given = dict(given or {})
    if unknown := set(given) - set(parts):
        raise ValueError(f"The model has no part {', '.join(sorted(unknown))}; its parts are {', '.join(parts)}.")
    known = {**local_licenses(parts), **given}
    return {role: known.get(role) for role in parts}


def license_link(license: License, repo_id: str) -> dict[str, str]:
    """What the Hub wants to know of a licence that is not in its list."""
    if license.identifier != "other":
        return {}
    return {"license_name": "see-the-card", "license_link": f"https://huggingface.co/{repo_id}#licence"}


def origin(part: Part) -> str:
    """Where a part came from, linked where it can be; folders stay untold."""
    if part.repo_id:
        return link(part.repo_id, part.revision)
    if part.is_embedded:
        return f"`{part.folder.name}` of the little world in tall-hf"
    return f"a model of type {escape(part.model_type)} that is not on the Hub"


def parts_table(parts: Mapping[str, Part], licenses: Mapping[str, str | None]) -> str:
    """What the model is made of, a part a row."""
    rows = []
    for role, part in parts.items():
        revision = f"`{part.revision}`" if part.revision else ""
        rows.append(
            [ROLE_TITLES[role], origin(part), revision, escape(part.model_type), escape(licenses[role] or "unknown")]
        )
    return table(["part", "from", "revision", "type", "licence"], rows)


def settings_table(settings: Mapping[str, Any], config: PreTrainedConfig) -> str:
    """The settings of a training that a reader may want, and the model's switches."""
    rows = [
        [title, shown_value(settings[key])] for key, title in _SETTINGS.items() if settings.get(key) not in (None, 0.0)
    ]
    switches = kind_of(config).chosen(config)
    rows += [[code(name), shown_value(value)] for name, value in switches.items() if value is not None]
    return table(["setting", "value"], rows)


def training_view(training: Training | None, config: PreTrainedConfig, accuracy_name: str) -> dict[str, Any] | None:
    """What a card says of the training: a table of its settings, how long it was, and how it ended.

    Args:
        training: what it left behind; None where nothing is known.
        config: the model's.
        accuracy_name: of its metric, such as "last_word_accuracy".
    """
    if training is None:
        return None
    settings = {**training.settings, "max_steps": training.state["global_step"]}
    if settings.get("processes") == 1:
        del settings["processes"]
    if config.source_fusion == "last":  # nothing is learned at that rate
        settings.pop("fusion_learning_rate", None)
    if settings.get("loss_positions") in _LOSS_POSITIONS:
        settings["loss_positions"] = _LOSS_POSITIONS[settings["loss_positions"]].format_map(settings)
    metrics = training.metrics
    accuracy = metrics.get(f"eval_{accuracy_name}")
    return {
        "settings": settings_table(settings, config),
        "epochs": f"{training.state['epoch']:.2f}" if training.state.get("epoch") else None,
        "minutes": f"{training.seconds / 60:.1f}" if training.seconds else None,
        "loss": f"{metrics['eval_loss']:.4f}" if "eval_loss" in metrics else None,
        "accuracy": None if accuracy is None else percent(accuracy),
    }


def shown_value(value: Any) -> str:
    """A setting's value as a cell."""
    return f"{value:g}" if isinstance(value, float) else escape(f"{value:,}" if isinstance(value, int) else str(value))
