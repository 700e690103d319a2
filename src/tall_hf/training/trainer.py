"""TALLTrainer: transformers' Trainer with what training adapters between frozen parts needs."""

import json
import math
from functools import cached_property
from pathlib import Path

import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerState
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from tall_hf.components import SWITCHES
from tall_hf.data import LastTokenCollator
from tall_hf.modeling.processing_tall import TALLProcessor

from . import light
from .arguments import TALLTrainingArguments
from .checkpoints import (
    COLUMNS,
    RESUMED_ARGUMENTS,
    SETTINGS_NAME,
    STATE_NAME,
    check_same_settings,
    dataset_fingerprint,
    last_checkpoint,
)
from .curriculum import LossCurriculum, narrow_labels
from .layer_weights import source_layer_weights
from .metrics import check_best_metric, last_word_metrics, predictions_and_losses
from .plot import plot_layer_weights, plot_training
from .unfreezing import unfreeze


logger = logging.get_logger(__name__)

PLOT_NAME = "training.png"
LAYER_WEIGHTS_NAME = "source_fusion.png"
_ALIGNMENTS = ("encoder.source_alignment.", "encoder.target_alignment.")
_GATE = "encoder.gate"
_FUSION = "encoder.source_fusion."


class EpochSampler(Sampler[int]):
    """Order of the training rows, a function of seed and epoch alone: the same after a resume and on every process.

    Args:
        size: number of rows.
        seed: of the orders.
        epoch: called at the start of each epoch, returns its number.
        lengths: of the rows; given, rows of similar length come together.
        batch_size: rows of one optimizer step over all processes.
    """

    def __init__(self, size, seed, epoch, lengths=None, batch_size=1):
        self.size, self.seed, self.epoch = size, seed, epoch
        self.lengths, self.batch_size = lengths, batch_size

    def __len__(self):
        return self.size

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        if self.lengths is None:
            yield from torch.randperm(self.size, generator=generator).tolist()
        else:
            yield from get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)


class TALLTrainer(Trainer):
    """Trains the adapters of a TALL.

    The frozen parts stay in evaluation mode and out of the optimizer; the loss is where `args.loss_positions` says, and
    evaluation always asks for the missing last word, in the order of its rows. Checkpoints hold the adapters only
    (`tall_hf.load_light`), `save_model` writes the whole model.

    Args:
        model: a TALLForCausalLM.
        args: TALLTrainingArguments.
        train_dataset: rows of `input_ids`, `llm_input_ids` and `labels`, as `tall prepare` writes them or
            `processor(text=..., translations=..., text_target=...)` makes them.
        eval_dataset: likewise.
        processing_class: the model's TALLProcessor.
        trainer_arguments: further arguments of Trainer. With `compute_metrics` of your own you get logits (rows, target
            length, vocabulary), aligned with the labels, and `eval_loss` is the Trainer's, a mean of batches.

    Metrics:
        `eval_loss` is the mean cross-entropy of the tokens of the last words, `eval_perplexity` its exponential,
        `eval_token_accuracy` the share of these tokens that is most probable after the true tokens before them, and
        `eval_last_word_accuracy` the share of words of which all tokens are.

    Raises:
        TypeError: for arguments or a processor of another kind, or without a model (`model_init` is not supported).
        ValueError: for an empty dataset, a data collator, or a `frozen_dtype` under nn.DataParallel.
        FloatingPointError: while training, when loss or gradients are no longer finite.
    """

    def __init__(
        self,
        model=None,
        args: TALLTrainingArguments | None = None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class: TALLProcessor | None = None,
        **trainer_arguments,
    ):
        if not isinstance(args, TALLTrainingArguments):
            raise TypeError(f"`args` must be TALLTrainingArguments, got {type(args).__name__}.")
        if not isinstance(processing_class, TALLProcessor):
            raise TypeError(
                f"`processing_class` must be the model's TALLProcessor, got {type(processing_class).__name__}."
            )
        if model is None:
            raise TypeError("`model` is missing: pass a TALLForCausalLM; `model_init` is not supported.")
        if args.frozen_dtype is not None and args.n_gpu > 1:
            raise ValueError(
                f"`frozen_dtype` does not work in one process on {args.n_gpu} GPUs (nn.DataParallel). Start one process a "
                "GPU with `torchrun --nproc-per-node`, or show it one GPU by CUDA_VISIBLE_DEVICES."
            )
        if data_collator is not None:
            raise ValueError(
                "TALLTrainer makes its collators by `args.loss_positions`, so leave out `data_collator`; a collator of your "
                "own goes with transformers' Trainer."
            )
        for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            if hasattr(dataset, "__len__") and len(dataset) == 0:
                raise ValueError(f"`{name}` is empty. Prepare it from text that has sentences of the lengths allowed.")
        if args.unfreeze:
            unfreeze(model, args.unfreeze)
        if args.frozen_dtype is not None:
            light.cast_frozen(model, getattr(torch, args.frozen_dtype))
        if args.unfreeze and not (args.bf16 or args.fp16):
            dtypes = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
            if len(dtypes) > 1:
                raise ValueError(
                    f"`unfreeze` trains layers in {model.dtype} between frozen ones in another dtype, which only mixed "
                    "precision joins: set `bf16` (or `fp16`), or leave out `frozen_dtype` and load the model in float32."
                )
        if not hasattr(train_dataset, "__len__") and args.train_sampling_strategy == "group_by_length":
            raise ValueError(
                "Rows of a stream cannot be grouped by length: leave out `train_sampling_strategy`, or pass a dataset of "
                "known length."
            )
        if not hasattr(train_dataset, "__len__") and args.accelerator_config.dispatch_batches is None:
            # Several processes would otherwise be sent pieces of one batch, which are padded differently.
            args.accelerator_config.dispatch_batches = False
        self.curriculum = LossCurriculum(args.loss_positions, args.loss_curriculum)
        positions = self.curriculum.collated_positions
        self.train_collator = LastTokenCollator(
            processing_class, loss_positions=positions, last_n=args.last_n if positions == "last_n" else None
        )
        if trainer_arguments.get("compute_metrics") is None:
            check_best_metric(args.metric_for_best_model)
            trainer_arguments["compute_metrics"] = last_word_metrics
            trainer_arguments["preprocess_logits_for_metrics"] = predictions_and_losses
        self._is_saving_checkpoint = False
        use_cache = model.config.use_cache
        super().__init__(
            model=model,
            args=args,
            data_collator=LastTokenCollator(processing_class, loss_positions="last_word"),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **trainer_arguments,
        )
        # The Trainer switches the cache off for good; with labels this model needs no telling.
        model.config.use_cache = use_cache
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))

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
            lengths=_row_lengths(dataset) if strategy == "group_by_length" else None,
            batch_size=self._step_batch_size,
        )

    def _get_eval_sampler(self, eval_dataset):
        # Transformers groups by length here too, and predictions would come in that order.
        is_whole = hasattr(eval_dataset, "__len__") and self.args.world_size <= 1
        return SequentialSampler(eval_dataset) if is_whole else None

    @property
    def _step_batch_size(self) -> int:
        # Not that of the arguments: `auto_find_batch_size` may have lowered it.
        return self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "continuation_length" not in self._signature_columns:
            self._signature_columns.append("continuation_length")  # the collator's; no input of the model

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        # Here and not in the collator: batches are collated ahead of their step.
        return super().get_batch_samples(map(self._narrow, epoch_iterator), num_batches, device)

    def _narrow(self, batch):
        positions = self.curriculum.positions_at(self.state.global_step, self.state.max_steps)
        if positions != self.train_collator.loss_positions:
            word_starts = self.processing_class.word_pieces()[0]
            batch["labels"] = narrow_labels(batch["labels"], positions, self.args.last_n, word_starts)
        return batch

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
        plot_training(self.state.log_history, Path(self.args.output_dir, PLOT_NAME))
        encoder = self.accelerator.unwrap_model(self.model).encoder
        # A sharded model would have to be gathered first.
        if encoder.source_fusion is not None and not self.is_fsdp_enabled:
            rows = self.train_dataset if self.eval_dataset is None else self.eval_dataset
            rows = next(iter(rows.values())) if isinstance(rows, dict) else rows
            weights = source_layer_weights(encoder.translator.get_encoder(), encoder.source_fusion, rows)
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
        name = name.removeprefix("module.")
        rate = None
        if name.startswith(_ALIGNMENTS):
            rate = self.args.alignment_learning_rate
        elif name == _GATE:
            rate = self.args.gate_learning_rate
        elif name.startswith(_FUSION):
            rate = self.args.fusion_learning_rate
        elif name.startswith(light.FROZEN) and ".lora_" not in name:
            rate = self.args.unfreeze_learning_rate
        return self.args.learning_rate if rate is None else rate

    def get_decay_parameter_names(self, model):
        # Decay would close the gate, and make all layers of a global fusion weigh the same, whatever they have learned.
        spared = {_GATE, f"{_FUSION}layer_logits", f"{_FUSION}temperature"}
        return [
            name for name in super().get_decay_parameter_names(model) if name.removeprefix("module.") not in spared
        ]

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
        settings = {name: getattr(self.args, name) for name in RESUMED_ARGUMENTS}
        settings |= {
            name: str(getattr(settings[name], "value", settings[name])) for name in ("lr_scheduler_type", "optim")
        }
        config = self.accelerator.unwrap_model(self.model).config
        return {
            "train_dataset": dataset_fingerprint(self.train_dataset),
            "eval_dataset": dataset_fingerprint(self.eval_dataset),
            "batch_size": self._step_batch_size,
            **settings,
            **{name: getattr(config, name) for name in SWITCHES},
            "lora": config.lora,
            "trained_weights": sorted(light.trainable_names(self.accelerator.unwrap_model(self.model))),
            "frozen_parts": self.frozen_pins["fingerprint"],
        }

    def _is_over(self, checkpoint) -> bool:
        """Whether the training ended with this checkpoint."""
        state = json.loads(Path(checkpoint, STATE_NAME).read_text(encoding="utf-8"))
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
        check_same_settings(checkpoint, self.training_settings)

    def _save_checkpoint(self, model, trial):
        self._is_saving_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_saving_checkpoint = False

    def _save(self, output_dir=None, state_dict=None):
        folder = output_dir if output_dir is not None else self.args.output_dir
        if not (self._is_saving_checkpoint and self.args.light_checkpoints):
            super()._save(folder, state_dict)
        else:
            model = self.accelerator.unwrap_model(self.model)
            names = light.light_names(model)
            weights = model.state_dict() if state_dict is None else state_dict
            with light.marked_as_light(model):
                super()._save(folder, {name: weights[name] for name in weights if name in names})
            if self.args.should_save:
                light.write_pins(self.frozen_pins, folder)
        if self._is_saving_checkpoint and self.args.should_save:
            settings = self.training_settings | {"processes": self.args.world_size}
            text = json.dumps(settings, indent=2, ensure_ascii=False)
            Path(folder, SETTINGS_NAME).write_text(text + "\n", encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        pins = Path(resume_from_checkpoint, light.PINS_NAME)
        if pins.is_file() and self.is_world_process_zero():
            wanted = json.loads(pins.read_text(encoding="utf-8"))
            light.check_pins(wanted, self.frozen_pins["fingerprint"], resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result):
        light.check_loaded(load_result, self.accelerator.unwrap_model(self.model), "the checkpoint")


def _row_lengths(dataset) -> list[int]:
    return [sum(len(row[name]) for name in COLUMNS if name in row) for row in dataset]
