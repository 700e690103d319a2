"""What `tall train` does beside any training by command: the data of a TALL, LoRA, and unfrozen layers."""

import dataclasses
from dataclasses import dataclass, field

from tall_hf.data.prepare import load_prepared, prepared_truncation
from tall_hf.kinds import TALL

from .adapter_run import TrainingRun
from .arguments import TALLTrainingArguments
from .lora import add_lora, check_lora, merge_lora
from .settings import RunSettings
from .trainer import TALLTrainer
from .unfreezing import unfreeze


@dataclass(frozen=True)
class TALLRunSettings(RunSettings):
    """What `tall train` needs beside TALLTrainingArguments."""

    lora_r: int | None = field(default=None, metadata={"help": "Rank of LoRA on the LLM; no LoRA when not given."})
    lora_alpha: float = field(default=32.0, metadata={"help": "LoRA's update is scaled by alpha / r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on what LoRA reads."})
    lora_target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Linear layers of the LLM that get LoRA; all of them when not given."}
    )
    lora_decoder: bool = field(default=False, metadata={"help": "LoRA on the HR→LR decoder too."})


class TALLRun(TrainingRun):
    """A training of the adapters of a TALL, by `tall train`."""

    kind = TALL
    settings_class = TALLRunSettings
    arguments_class = TALLTrainingArguments
    trainer_class = TALLTrainer

    def check(self):
        settings = self.settings
        if self.args.unfreeze and settings.lora_r is not None:
            raise ValueError("Set `lora_r` or `unfreeze`: layers are unfrozen or have LoRA, not both.")
        if settings.lora_r is not None:
            check_lora(settings.lora_r, settings.lora_alpha, settings.lora_dropout)
        else:
            defaults = TALLRunSettings(settings.model, settings.dataset, settings.attn_implementation)
            useless = [
                f.name for f in dataclasses.fields(settings) if getattr(settings, f.name) != getattr(defaults, f.name)
            ]
            if self.args.lora_learning_rate is not None:
                useless.append("lora_learning_rate")
            if useless:
                raise ValueError(f"`{useless[0]}` is a setting of LoRA, which is off: set `lora_r`, or leave it out.")
        super().check()

    def load_rows(self, model, processor):
        dataset = self.settings.dataset
        splits = load_prepared(dataset, model, processor)
        check_truncation(dataset, prepared_truncation(dataset), self.args.loss_positions)
        return splits

    def add_trained_parts(self, model):
        settings = self.settings
        if settings.lora_r is not None:
            add_lora(
                model,
                settings.lora_r,
                settings.lora_alpha,
                settings.lora_dropout,
                settings.lora_target_modules,
                settings.lora_decoder,
            )

    def restore(self, model, trained):
        self.add_trained_parts(model)
        if self.args.unfreeze:
            unfreeze(model, self.args.unfreeze)
        super().restore(model, trained)
        if self.settings.lora_r is not None:
            merge_lora(model)


def check_truncation(dataset: str, truncation: str, loss_positions: str) -> None:
    """See that what is learned is what the source side lacks.

    Args:
        dataset: what the rows are called in messages.
        truncation: what sentences lost before they were translated, as `tall prepare` takes it.
        loss_positions: of TALLTrainingArguments.

    Raises:
        ValueError: it is not.
    """
    if truncation == "random_word" and loss_positions not in ("continuation", "all"):
        raise ValueError(
            f"{dataset} was prepared with truncation {truncation!r}: its source side lacks several words, and "
            f'`loss_positions` {loss_positions!r} would learn the end of what it lacks. Set it to "continuation".'
        )
    if truncation == "none" and loss_positions != "all":
        raise ValueError(
            f"{dataset} was prepared with truncation {truncation!r}: its source side has read the whole sentence, and "
            f'`loss_positions` {loss_positions!r} asks for what it lacks. Set it to "all".'
        )
