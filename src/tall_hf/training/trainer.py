"""TALLTrainer: training the adapters of a TALL, with the loss where the task asks for it."""

import contextlib
from collections.abc import Iterator

from tall_hf.data import LastTokenCollator
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor

from .adapter_trainer import AdapterTrainer
from .arguments import TALLTrainingArguments
from .curriculum import LossCurriculum, narrow_labels
from .metrics import predictions_and_losses
from .unfreezing import unfreeze


_ALIGNMENTS = ("encoder.source_alignment.", "encoder.target_alignment.")
_GATE = "encoder.gate"
_EMBEDDINGS = ("get_input_embeddings", "get_output_embeddings")


@contextlib.contextmanager
def without_embeddings(model: TALLForCausalLM) -> Iterator[None]:
    """Let nobody find the model's embeddings, which accelerate (FSDP2) would shard in groups of their own.

    Both weights of a TALL stand elsewhere in it too, and torch refuses a weight that is in two groups.
    """
    for name in _EMBEDDINGS:
        setattr(model, name, lambda: None)
    try:
        yield
    finally:
        for name in _EMBEDDINGS:
            delattr(model, name)


class TALLTrainer(AdapterTrainer):
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
        ValueError: for an empty dataset, a data collator, a `frozen_dtype` under nn.DataParallel, a `lora_learning_rate`
            without LoRA, `unfreeze` of what is not there or of layers between others in another dtype, or a
            `metric_for_best_model` that is none of the metrics.
        FloatingPointError: while training, when loss or gradients are no longer finite.
    """

    arguments_class = TALLTrainingArguments
    processor_class = TALLProcessor
    accuracy_name = "last_word_accuracy"

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
        compute_metrics = trainer_arguments.get("compute_metrics")
        self.check_arguments(
            model, args, processing_class, data_collator, train_dataset, eval_dataset, compute_metrics
        )
        if args.lora_learning_rate is not None and not any(".lora_" in name for name, _ in model.named_parameters()):
            raise ValueError(
                "`lora_learning_rate` has nothing to train: give the model LoRA first (`tall_hf.training.lora.add_lora`), or "
                "leave it out."
            )
        if args.unfreeze:
            unfreeze(model, args.unfreeze)
        self.curriculum = LossCurriculum(args.loss_positions, args.loss_curriculum)
        positions = self.curriculum.collated_positions
        last_n = args.last_n if positions == "last_n" else None
        super().__init__(
            model,
            args,
            train_collator=LastTokenCollator(processing_class, loss_positions=positions, last_n=last_n),
            eval_collator=LastTokenCollator(processing_class, loss_positions="last_word"),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **trainer_arguments,
        )
        if args.unfreeze and not (args.bf16 or args.fp16):
            dtypes = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
            if len(dtypes) > 1:
                raise ValueError(
                    f"`unfreeze` trains layers in {model.dtype} between frozen ones in another dtype, which only mixed "
                    "precision joins: set `bf16` (or `fp16`), or leave out `frozen_dtype` and load the model in float32."
                )

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        if getattr(plugin, "fsdp_version", 1) != 2:
            return
        if plugin.cpu_ram_efficient_loading:
            raise ValueError(
                "`fsdp_cpu_ram_efficient_loading` does not work with a TALL, whose checkpoint holds buffers that accelerate cannot "
                "spread. Set it to false; each process then loads the whole model into its machine's memory before it is sharded."
            )
        prepare = self.accelerator.prepare

        def prepare_in_one_group(*args, **kwargs):
            with without_embeddings(self.model):
                return prepare(*args, **kwargs)

        self.accelerator.prepare = prepare_in_one_group

    predictions_and_losses = staticmethod(predictions_and_losses)

    def fused_layers(self, model):
        encoder = model.encoder
        return encoder.translator.get_encoder(), encoder.source_fusion, "input_ids"

    def own_learning_rate(self, name):
        if name.startswith(_ALIGNMENTS):
            return self.args.alignment_learning_rate
        if name == _GATE:
            return self.args.gate_learning_rate
        if name.startswith(self.model.frozen_prefixes):
            return self.args.lora_learning_rate if ".lora_" in name else self.args.unfreeze_learning_rate
        return super().own_learning_rate(name)

    def spared_from_decay(self, name):
        return name == _GATE or super().spared_from_decay(name)  # decay would close the gate

    # --- data --------------------------------------------------------------------------------------------------------

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
            batch["labels"] = narrow_labels(
                batch["labels"], positions, self.args.last_n, self.train_collator.word_masks
            )
        return batch
