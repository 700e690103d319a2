"""What a training by command does: settings from a YAML file and flags, then from prepared rows to a saved model."""

import contextlib
import math
import os
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from datasets import DatasetDict
from transformers import ProcessorMixin
from transformers.integrations import get_available_reporting_integrations
from transformers.utils import logging

from tall_hf.files import atomic_write, full_disk_named, locked, remove_unfinished, write_json
from tall_hf.kinds import ModelKind, check_kind
from tall_hf.modeling.frozen_parts_tall import FrozenPartsModel
from tall_hf.saving import MODEL_FOLDER, check_output, save

from .adapter_trainer import AdapterTrainer
from .arguments import AdapterTrainingArguments
from .checkpoints import SETTINGS_NAME, STATE_NAME, last_checkpoint
from .light import cast_adapters, check_loaded, light_names
from .settings import RunSettings, read_command_line, read_settings


logger = logging.get_logger(__name__)

METRICS_NAME = "metrics.json"


class TrainingRun(ABC):
    """A training of one kind of model, by command.

    Args:
        settings: model and data.
        args: the training.

    Raises:
        ImportError: what `report_to` names is not installed.
        ValueError: settings that contradict each other.
    """

    kind: ModelKind
    settings_class: type[RunSettings] = RunSettings
    arguments_class: type[AdapterTrainingArguments]
    trainer_class: type[AdapterTrainer]

    def __init__(self, settings: RunSettings, args: AdapterTrainingArguments):
        self.settings, self.args = settings, args
        self.check()

    @classmethod
    def read_settings(cls, config: str | os.PathLike | None, **overrides):
        """Settings and arguments from a YAML file; `overrides`, strings being YAML, go before it."""
        return read_settings(config, cls.settings_class, cls.arguments_class, **overrides)

    @classmethod
    def read_command_line(cls, arguments: list[str]) -> tuple[str | None, dict[str, str]]:
        """Split `[CONFIG.yaml] [--name value | --name=value | --flag | --set name=value] ...` into file and settings."""
        return read_command_line(arguments, cls.settings_class, cls.arguments_class)

    # --- what a kind of model says -----------------------------------------------------------------------------------

    @abstractmethod
    def load_rows(self, model: FrozenPartsModel, processor: ProcessorMixin) -> DatasetDict:
        """The prepared rows, "train" and perhaps "validation", seen to be this model's."""

    def add_trained_parts(self, model: FrozenPartsModel) -> None:  # noqa: B027 (few models train anything there)
        """Add what is trained inside the frozen parts before the trainer sees the model, as LoRA."""

    def restore(self, model: FrozenPartsModel, trained: dict[str, torch.Tensor]) -> None:
        """Make of a freshly loaded model the one that was trained."""
        check_loaded(model.load_state_dict(trained, strict=False), model, "the training")

    # --- the training ------------------------------------------------------------------------------------------------

    def run(self, resume: bool = False) -> Path:
        """Train, and save the best model whole, with its processor, in `output_dir/model`.

        Beside it stand the checkpoints, the plot `training.png`, `training_settings.json` and `metrics.json`: the last
        evaluation, and what was trained (trainable parameters, steps, samples read, and the peak of an accelerator's memory).
        The saved model is in float32: the frozen parts as they were loaded, whatever `frozen_dtype` they were trained
        between, and LoRA merged.

        Args:
            resume: go on after the last complete checkpoint in `output_dir`, if there is one.

        Returns:
            The folder of the saved model.

        Raises:
            BlockingIOError: another training writes to `output_dir`.
            FileExistsError: `output_dir` has checkpoints and `resume` is false.
            FileNotFoundError, ValueError: what the model or the data cannot be used for.
            OSError: the disk is full; the checkpoints before it are kept.
            FloatingPointError: loss or gradients are no longer finite.
        """
        output = self.args.output_dir
        Path(output).mkdir(parents=True, exist_ok=True)
        advice = (
            "Free some space, then run the same command again with --resume: it goes on after the last checkpoint."
        )
        with (
            locked(output) if self.args.process_index == 0 else contextlib.nullcontext(),
            full_disk_named(output, advice),
        ):
            return self._train(resume)

    def check(self) -> None:
        """See that settings do not contradict each other."""
        args = self.args
        missing = set(args.report_to) - set(get_available_reporting_integrations()) - {"none"}
        if missing:
            raise ImportError(
                f"`report_to` names {', '.join(map(repr, sorted(missing)))}, which is not installed here: `pip install` it "
                "(for tensorboard the package tensorboardX will do), or leave it out."
            )
        if args.push_to_hub:
            raise ValueError(
                f"`push_to_hub` is not for this command: it saves the whole model in {Path(args.output_dir, MODEL_FOLDER)}, "
                "to be published from there."
            )
        launched = int(os.environ.get("WORLD_SIZE", 1))
        if launched != args.world_size:
            raise ValueError(
                f"This is one of {launched} processes that were launched, but its training counts {args.world_size}, so they "
                "would all train alone. Leave out settings that keep them apart, such as `use_cpu` with GPUs, or launch one."
            )

    def _train(self, resume: bool) -> Path:
        settings, args = self.settings, self.args
        if args.process_index == 0:
            remove_unfinished(args.output_dir)
        checkpoint = last_checkpoint(args.output_dir)
        if checkpoint is not None and not resume and not args.resume_from_checkpoint:
            raise FileExistsError(
                f"{checkpoint} is there already. Go on with it by --resume, or name another `output_dir`."
            )
        final = check_output(Path(args.output_dir, MODEL_FOLDER))
        check_kind(settings.model, self.kind)
        model, processor = self._load()
        splits = self.load_rows(model, processor)
        if "validation" not in splits and args.eval_strategy != "no":
            raise ValueError(
                f"{settings.dataset} has no validation rows: prepare it with a `validation_share`, or set `eval_strategy` "
                "and `save_strategy` to what needs none."
            )
        if model.dtype != torch.float32:
            # Small steps are lost in 16 bits; the frozen parts take none.
            cast_adapters(model, torch.float32)
        self.add_trained_parts(model)
        trainer = self.trainer_class(
            model=model,
            args=args,
            train_dataset=splits["train"],
            eval_dataset=splits.get("validation"),
            processing_class=processor,
        )
        # Counted before the training, which may spread the weights over processes.
        trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
        if resume and checkpoint is None:
            logger.warning(
                f"{args.output_dir} has no complete checkpoint yet: the training starts from the beginning."
            )
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint or (checkpoint if resume else None))
        metrics = trainer.evaluate() if "validation" in splits else {}
        rows, steps = len(splits["train"]), trainer.state.global_step
        metrics |= {
            "trainable_parameters": trainable,
            "train_rows": rows,
            "steps": steps,
            "samples": samples_read(steps, rows, trainer.step_batch_size, args.dataloader_drop_last),
            "peak_accelerator_memory": _peak_accelerator_memory(),
        }
        self._save_trained(trainer, processor, final)
        if trainer.is_world_process_zero():
            with atomic_write(Path(args.output_dir, STATE_NAME)) as aside:
                trainer.state.save_to_json(str(aside))
            # Checkpoints have the settings too, but may be deleted.
            settings_then = trainer.training_settings | {"processes": args.world_size}
            for name, values in ((SETTINGS_NAME, settings_then), (METRICS_NAME, metrics)):
                write_json(Path(args.output_dir, name), values)
        return final

    def _load(self, **options) -> tuple[FrozenPartsModel, ProcessorMixin]:
        if self.settings.attn_implementation is not None:
            options["attn_implementation"] = self.settings.attn_implementation
        return self.kind.load(self.settings.model, **options)

    def _save_trained(self, trainer: AdapterTrainer, processor: ProcessorMixin, final: Path):
        """Save what was trained, with the frozen parts as they were loaded and not as the training kept them."""
        trained = trainer.accelerator.unwrap_model(trainer.model)
        # Every process takes part in gathering weights that are sharded.
        weights = trainer.accelerator.get_state_dict(trainer.model)
        if not trainer.is_world_process_zero():
            return
        revision = getattr(trained.config, "_commit_hash", None) or "main"
        model, _ = self._load(dtype=torch.float32, revision=revision)
        names = light_names(trained)
        self.restore(model, {name: weights[name] for name in weights if name in names})
        save(model, processor, final)


def samples_read(steps: int, rows: int, batch_size: int, drop_last: bool = False) -> int:
    """How many rows so many optimizer steps have read; the last step of an epoch reads what is left of it.

    Args:
        steps: from the start of the training on.
        rows: of the training data.
        batch_size: rows of a step, over all processes and accumulated batches.
        drop_last: an epoch ends before a step that it cannot fill.
    """
    steps_in_epoch = max(1, rows // batch_size) if drop_last else math.ceil(rows / batch_size)
    epochs, rest = divmod(steps, steps_in_epoch)
    in_epoch = min(rows, steps_in_epoch * batch_size)
    return epochs * in_epoch + min(rest * batch_size, in_epoch)


def _peak_accelerator_memory() -> int | None:
    """Bytes of tensors on the accelerator at the highest, in this process; None without one, or where torch does not tell."""
    if not torch.accelerator.is_available():
        return None
    module = torch.get_device_module(torch.accelerator.current_accelerator())
    return module.max_memory_allocated() if hasattr(module, "max_memory_allocated") else None
