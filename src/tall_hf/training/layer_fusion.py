"""LayerFusionTrainer: training the fusion, the mapping and the end vector of a LayerFusionForCausalLM."""

from tall_hf.data import LayerFusionCollator
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor

from .adapter_trainer import AdapterTrainer
from .arguments import LayerFusionTrainingArguments
from .metrics import next_token_predictions_and_losses


class LayerFusionTrainer(AdapterTrainer):
    """Trains what stands between encoder and LLM of a LayerFusionForCausalLM, on answers.

    The frozen parts stay in evaluation mode and out of the optimizer. Checkpoints hold the rest only
    (`tall_hf.load_light`), `save_model` writes the whole model.

    Args:
        model: a LayerFusionForCausalLM.
        args: LayerFusionTrainingArguments.
        train_dataset: rows as `processor(text=..., prompt=..., text_target=...)` makes them.
        eval_dataset: likewise.
        processing_class: the model's LayerFusionProcessor.
        trainer_arguments: further arguments of Trainer. With `compute_metrics` of your own you get logits (rows, length,
            vocabulary), each of which predicts the next label, and `eval_loss` is the Trainer's, a mean of batches.

    Metrics:
        `eval_loss` is the mean cross-entropy of the tokens of the answers and their ends, `eval_perplexity` its
        exponential, `eval_token_accuracy` the share of these tokens that is most probable after the true tokens before
        them, and `eval_answer_accuracy` the share of answers of which all tokens are.

    Raises:
        TypeError: for arguments or a processor of another kind, or without a model (`model_init` is not supported).
        ValueError: for an empty dataset, a data collator, a `frozen_dtype` under nn.DataParallel, or a `metric_for_best_model`
            that is none of the metrics.
        FloatingPointError: while training, when loss or gradients are no longer finite.
    """

    arguments_class = LayerFusionTrainingArguments
    processor_class = LayerFusionProcessor
    accuracy_name = "answer_accuracy"
    predicts_next_label = True

    def __init__(
        self,
        model=None,
        args: LayerFusionTrainingArguments | None = None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class: LayerFusionProcessor | None = None,
        **trainer_arguments,
    ):
        compute_metrics = trainer_arguments.get("compute_metrics")
        self.check_arguments(
            model, args, processing_class, data_collator, train_dataset, eval_dataset, compute_metrics
        )
        collator = LayerFusionCollator(processing_class)
        super().__init__(
            model,
            args,
            train_collator=collator,
            eval_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **trainer_arguments,
        )

    predictions_and_losses = staticmethod(next_token_predictions_and_losses)

    def fused_layers(self, model):
        return model.encoder, model.source_fusion, "source_input_ids"
