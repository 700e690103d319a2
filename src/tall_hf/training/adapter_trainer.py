"""AdapterTrainer: transformers' Trainer with what training adapters between frozen parts needs, whatever the model."""

import json
import math
from abc import ABC, abstractmethod
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, ProcessorMixin, Trainer, TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from tall_hf.files import read_json
from tall_hf.kinds import kind_of
from tall_hf.modeling.frozen_parts_tall import FrozenPartsModel
from tall_hf.modeling.fusion_tall import SourceFusion

from . import light
from .arguments import AdapterTrainingArguments
from .attention import training_attention
from .checkpoint_rotation import StepwiseRotation
from .checkpoints import (
    RESUMED_ARGUMENTS,
    SETTINGS_NAME,
    STATE_NAME,
    check_same_settings,
    dataset_fingerprint,
    last_checkpoint,
)
from .layer_weights import source_layer_weights
from .metrics import check_best_metric, label_metrics
from .plot import plot_layer_weights, plot_training
from .sampler import EpochSampler


logger = logging.get_logger(__name__)

PLOT_NAME = "training.png"
LAYER_WEIGHTS_NAME = "source_fusion.png"
_FUSION = "source_fusion."


class AdapterTrainer(StepwiseRotation, Trainer, ABC):
    """Trains the adapters of a model around frozen parts; TALLTrainer and LayerFusionTrainer say of which model.

    The frozen parts stay in evaluation mode and out of the optimizer. Checkpoints hold the adapters only
    (`tall_hf.load_light`), `save_model` writes the whole model. Rows come in an order that only seed and epoch decide, so a
    resumed training is the undisturbed one.

    Args:
        model: to train; `model_init` is not supported.
        args: of the trainer's `arguments_class`.
        train_collator: makes the batches that are trained on.
        eval_collator: makes those that are evaluated.
        train_dataset: rows of the collators' `row_columns`.
        eval_dataset: likewise.
        processing_class: the model's processor.
        trainer_arguments: further arguments of Trainer. With `compute_metrics` of your own, `eval_loss` is the Trainer's,
            a mean of batches.

    Raises:
        TypeError: for arguments or a processor of another kind, or without a model.
        ValueError: for an empty dataset, or a `frozen_dtype` under nn.DataParallel.
        FloatingPointError: while training, when loss or gradients are no longer finite.
    """

    arguments_class = AdapterTrainingArguments
    processor_class = ProcessorMixin
    # The share of rows of which every learned token is right, as metrics call it.
    accuracy_name = "accuracy"
    # Whether the logits of a position predict the next label, and not the one that stands beside them.
    predicts_next_label = False

    def __init__(
        self,
        model,
        args: AdapterTrainingArguments,
        train_collator,
        eval_collator,
        train_dataset=None,
        eval_dataset=None,
        processing_class: ProcessorMixin | None = None,
        **trainer_arguments,
    ):
        if args.frozen_dtype is not None:
            light.cast_frozen(model, getattr(torch, args.frozen_dtype))
        if not hasattr(train_dataset, "__len__") and args.accelerator_config.dispatch_batches is None:
            # Several processes would otherwise be sent pieces of one batch, which are padded differently.
            args.accelerator_config.dispatch_batches = False
        self.train_collator = train_collator
        if trainer_arguments.get("compute_metrics") is None:
            trainer_arguments["compute_metrics"] = self.label_metrics
            trainer_arguments["preprocess_logits_for_metrics"] = self.predictions_and_losses
        self._is_saving_checkpoint = False
        use_cache = model.config.use_cache
        super().__init__(
            model=model,
            args=args,
            data_collator=eval_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **trainer_arguments,
        )
        if self.label_smoother is not None:
            # By itself the Trainer shifts labels for the classes of transformers alone, which it knows by name.
            self.label_smoother = partial(self.label_smoother, shift_labels=self.predicts_next_label)
        # The Trainer switches the cache off for good; with labels these models need no telling.
        model.config.use_cache = use_cache
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))

    @classmethod
    def check_arguments(
        cls, model, args, processing_class, data_collator, train_dataset=None, eval_dataset=None, compute_metrics=None
    ):
        """See that a trainer was given what it is for; what a subclass does first, before anything is done to the model."""
        if not isinstance(args, cls.arguments_class):
            raise TypeError(f"`args` must be {cls.arguments_class.__name__}, got {type(args).__name__}.")
        if not isinstance(processing_class, cls.processor_class):
            raise TypeError(
                f"`processing_class` must be the model's {cls.processor_class.__name__}, got "
                f"{type(processing_class).__name__}."
            )
        if model is None:
            raise TypeError("`model` is missing: pass the model to train; `model_init` is not supported.")
        if args.frozen_dtype is not None and args.n_gpu > 1:
            raise ValueError(
                f"`frozen_dtype` does not work in one process on {args.n_gpu} GPUs (nn.DataParallel). Start one process a "
                "GPU with `torchrun --nproc-per-node`, or show it one GPU by CUDA_VISIBLE_DEVICES."
            )
        if data_collator is not None:
            raise ValueError(
                f"{cls.__name__} makes its own collators, so leave out `data_collator`; a collator of your own goes with "
                "transformers' Trainer."
            )
        for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            if hasattr(dataset, "__len__") and len(dataset) == 0:
                raise ValueError(f"`{name}` is empty. Prepare it from text that has sentences of the lengths allowed.")
        if not hasattr(train_dataset, "__len__") and args.train_sampling_strategy == "group_by_length":
            raise ValueError(
                "Rows of a stream cannot be grouped by length: leave out `train_sampling_strategy`, or pass a dataset of "
                "known length."
            )
        if compute_metrics is None:
            check_best_metric(args.metric_for_best_model, cls.accuracy_name)

    # --- what a model's trainer says ----------------------------------------------------------------------------------

    @abstractmethod
    def fused_layers(self, model: FrozenPartsModel) -> tuple[nn.Module, SourceFusion | None, str]:
        """The source encoder, the fusion of its layers, and the column of its tokens in a row."""

    @staticmethod
    @abstractmethod
    def predictions_and_losses(logits, labels):
        """Of logits (batch, length, vocabulary) what metrics need: most probable tokens and losses, aligned with labels."""

    @classmethod
    def label_metrics(cls, evaluation) -> dict[str, float]:
        """Metrics of `predictions_and_losses`."""
        return label_metrics(evaluation, cls.accuracy_name)

    def own_learning_rate(self, name: str) -> float | None:
        """The learning rate of a parameter, if it has one of its own."""
        return self.args.fusion_learning_rate if _FUSION in name else None

    def spared_from_decay(self, name: str) -> bool:
        """Whether weight decay would pull a parameter from what it has learned to where it means nothing."""
        # It would make all layers of a global fusion weigh the same.
        return name.endswith((f"{_FUSION}layer_logits", f"{_FUSION}temperature"))

    # --- data --------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self):
        evaluation_collator, self.data_collator = self.data_collator, self.train_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = evaluation_collator

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if not hasattr(dataset, "__len__") or strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(train_dataset)
        return EpochSampler(
            len(dataset),
            self.args.data_seed,
            # The state's epoch is set before an epoch begins, and restored by a resume.
            epoch=lambda: int(self.state.epoch or 0),
            lengths=self._row_lengths(dataset) if strategy == "group_by_length" else None,
            batch_size=self.step_batch_size,
        )

    def _get_eval_sampler(self, eval_dataset):
        # Transformers groups by length here too, and predictions would come in that order.
        is_whole = hasattr(eval_dataset, "__len__") and self.args.world_size <= 1
        return SequentialSampler(eval_dataset) if is_whole else None

    @property
    def step_batch_size(self) -> int:
        """Rows of an optimizer step, over all processes and accumulated batches."""
        # Not that of the arguments: `auto_find_batch_size` may have lowered it.
        return self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def _row_lengths(self, dataset) -> list[int]:
        return [sum(len(row[name]) for name in self.train_collator.row_columns if name in row) for row in dataset]

    # --- training ----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As Trainer's; `resume_from_checkpoint=True` is the last checkpoint that was written to its end.

        A training that was over, by its steps or by early stopping, is not trained on: the weights it ended with are
        loaded.

        Raises:
            ValueError: there is nothing to resume, or the checkpoint has other settings or data, or weights alone.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(f"{self.args.output_dir} has no complete checkpoint to resume; train from the start.")
        if self.is_fsdp_enabled and self.is_world_process_zero():
            # Taken before the weights are spread over the processes.
            self.frozen_pins = light.frozen_pins(self.model)
        if resume_from_checkpoint:
            self._check_settings(resume_from_checkpoint)
        if resume_from_checkpoint and self._is_over(resume_from_checkpoint):
            result = self._load_finished(resume_from_checkpoint)
        else:
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        if self.is_world_process_zero():
            try:
                self._plot()
            except ImportError as error:
                logger.warning(f"No plot of this training was drawn. {error}")
        return result

    def _plot(self):
        plot_training(self.state.log_history, Path(self.args.output_dir, PLOT_NAME), self.accuracy_name)
        encoder, fusion, column = self.fused_layers(self.accelerator.unwrap_model(self.model))
        # A sharded model would have to be gathered first.
        if fusion is not None and not self.is_fsdp_enabled:
            rows = self.train_dataset if self.eval_dataset is None else self.eval_dataset
            rows = next(iter(rows.values())) if isinstance(rows, dict) else rows
            weights = source_layer_weights(encoder, fusion, rows, column)
            plot_layer_weights(weights, Path(self.args.output_dir, LAYER_WEIGHTS_NAME))

    def create_optimizer(self, model=None):
        """AdamW over the trainable parameters, in groups by learning rate and weight decay."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer = super().create_optimizer(model)
        names = {
            id(parameter): name for name, parameter in (self.model if model is None else model).named_parameters()
        }
        groups = []
        for group in optimizer.param_groups:
            by_rate = {}
            for parameter in group["params"]:
                by_rate.setdefault(self._learning_rate_of(names[id(parameter)]), []).append(parameter)
            groups += [{**group, "params": parameters, "lr": rate} for rate, parameters in by_rate.items()]
        optimizer.param_groups[:] = groups
        return optimizer

    def _learning_rate_of(self, name: str) -> float:
        rate = self.own_learning_rate(name.removeprefix("module."))
        return self.args.learning_rate if rate is None else rate

    def get_decay_parameter_names(self, model):
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not self.spared_from_decay(name.removeprefix("module."))]

    def compute_loss(self, model, inputs, *args, **kwargs):
        # A checkpointed layer is computed again after this, and must be by the same kernel.
        if not model.training or self.args.gradient_checkpointing:
            return super().compute_loss(model, inputs, *args, **kwargs)
        with training_attention(inputs):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self._check_finite("loss", loss)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm)
        # With float16 an overflow is expected, and its step is skipped by the scaler.
        if self.accelerator.scaler is None:
            self._check_finite("gradient norm", grad_norm)
        return grad_norm

    def _check_finite(self, name, value):
        if math.isfinite(value):
            return
        checkpoint = last_checkpoint(self.args.output_dir)
        raise FloatingPointError(
            f"The {name} is {float(value)} at step {self.state.global_step + 1}, before the weights were changed by it. The "
            f"last good checkpoint is {checkpoint or 'not yet written'}. Lower the learning rate, lengthen the warm-up, or "
            "train in float32."
        )

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        name = f"{metric_key_prefix}_loss"
        # The Trainer averages batches; this is the average of tokens, however they were batched.
        exact = output.metrics.pop(f"{metric_key_prefix}_token_loss", None)
        if exact is not None:
            output.metrics[name] = exact
        if name in output.metrics:
            # Beyond 700 the exponential overflows; such a model has learned nothing anyhow.
            output.metrics[f"{metric_key_prefix}_perplexity"] = math.exp(min(output.metrics[name], 700.0))
        return output

    # --- checkpoints -------------------------------------------------------------------------------------------------

    @cached_property
    def frozen_pins(self) -> dict:
        """What a light checkpoint pins; taken once, since training does not change it."""
        return light.frozen_pins(self.accelerator.unwrap_model(self.model))

    @cached_property
    def training_settings(self) -> dict:
        """What a resumed training must share with its checkpoint; JSON values."""
        settings = {name: getattr(self.args, name) for name in RESUMED_ARGUMENTS if hasattr(self.args, name)}
        settings |= {
            name: str(getattr(settings[name], "value", settings[name])) for name in ("lr_scheduler_type", "optim")
        }
        config = self.accelerator.unwrap_model(self.model).config
        return {
            "train_dataset": dataset_fingerprint(self.train_dataset, self.train_collator.row_columns),
            "eval_dataset": dataset_fingerprint(self.eval_dataset, self.train_collator.row_columns),
            "batch_size": self.step_batch_size,
            **settings,
            **kind_of(config).chosen(config),
            "lora": getattr(config, "lora", None),
            "trained_weights": sorted(light.trainable_names(self.accelerator.unwrap_model(self.model))),
            "frozen_parts": self.frozen_pins["fingerprint"],
        }

    def _is_over(self, checkpoint) -> bool:
        """Whether the training ended with this checkpoint."""
        state = read_json(Path(checkpoint, STATE_NAME))
        early_stopping = state["stateful_callbacks"].get(EarlyStoppingCallback.__name__)
        if early_stopping is not None and self.args.early_stopping_patience is not None:
            counter = early_stopping["attributes"]["early_stopping_patience_counter"]
            if counter >= self.args.early_stopping_patience:
                return True
        if self.args.max_steps > 0:
            return state["global_step"] >= self.args.max_steps
        return state["global_step"] >= state["max_steps"] and not self.args.allow_changed_settings

    def _load_finished(self, checkpoint) -> TrainOutput:
        """What `train` returned when the training ended with this checkpoint, and the weights it left."""
        logger.warning(f"This training was over with {checkpoint}; nothing is left to train.")
        self.state = TrainerState.load_from_json(str(Path(checkpoint, STATE_NAME)))
        self.state.is_local_process_zero = self.is_local_process_zero()
        self.state.is_world_process_zero = self.is_world_process_zero()
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self._load_from_checkpoint(best or checkpoint)
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return TrainOutput(self.state.global_step, losses[-1] if losses else math.nan, {})

    def _check_settings(self, checkpoint):
        if self.args.allow_changed_settings or not self.is_world_process_zero():
            return
        if (
            not Path(checkpoint, "optimizer.pt").is_file()
            and not self.is_fsdp_enabled
            and not self.is_deepspeed_enabled
        ):
            raise ValueError(
                f"{checkpoint} holds weights alone (`save_only_model`), so the optimizer and the schedule would start "
                "anew. Begin another training from these weights, or set `allow_changed_settings` to go on all the same."
            )
        kind = kind_of(self.accelerator.unwrap_model(self.model).config)
        check_same_settings(checkpoint, self.training_settings, defaults=kind.chosen(kind.config_class()))

    def _save_checkpoint(self, model, trial):
        self._is_saving_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_saving_checkpoint = False

    def _save(self, output_dir=None, state_dict=None):
        folder = output_dir if output_dir is not None else self.args.output_dir
        # The Trainer writes its arguments beside the weights, a token among them.
        token, self.args.hub_token = self.args.hub_token, None
        try:
            self._save_weights(folder, state_dict)
        finally:
            self.args.hub_token = token
        if self._is_saving_checkpoint and self.args.should_save:
            settings = self.training_settings | {"processes": self.args.world_size}
            text = json.dumps(settings, indent=2, ensure_ascii=False)
            Path(folder, SETTINGS_NAME).write_text(text + "\n", encoding="utf-8")

    def _save_weights(self, folder, state_dict):
        """Save all weights, or in a light checkpoint those that are trained, with the pins of the others."""
        if not (self._is_saving_checkpoint and self.args.light_checkpoints):
            super()._save(folder, state_dict)
            return
        model = self.accelerator.unwrap_model(self.model)
        names = light.light_names(model)
        weights = model.state_dict() if state_dict is None else state_dict
        with light.marked_as_light(model):
            super()._save(folder, {name: weights[name] for name in weights if name in names})
        if self.args.should_save:
            light.write_pins(self.frozen_pins, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        pins = Path(resume_from_checkpoint, light.PINS_NAME)
        if pins.is_file() and self.is_world_process_zero():
            wanted = read_json(pins)
            light.check_pins(wanted, self.frozen_pins["fingerprint"], resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result):
        light.check_loaded(load_result, self.accelerator.unwrap_model(self.model), "the checkpoint")
