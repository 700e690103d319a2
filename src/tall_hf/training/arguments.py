"""Arguments of a training of adapters: transformers' TrainingArguments with what such trainings add, and the papers' values."""

from dataclasses import dataclass, field

import torch
from transformers import IntervalStrategy, TrainingArguments
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import is_torch_bf16_gpu_available

from tall_hf.data.collator import LOSS_POSITIONS
from tall_hf.measuring.device import warn_of_slow_bfloat16


SAMPLING_STRATEGIES = ("random", "sequential", "group_by_length")
FROZEN_DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class AdapterTrainingArguments(TrainingArguments):
    """How adapters between frozen parts are trained; every field of TrainingArguments may be set as well.

    Intervals below 1 are shares of the whole training.

    Raises:
        ValueError: for a value that is out of range or contradicts another one.
    """

    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "Shape of the learning rate over the training."}
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm that gradients are clipped to."})
    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bfloat16; where the accelerator can, when not given."}
    )
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate: no, steps or epoch."})
    eval_steps: float | None = field(default=0.05, metadata={"help": "Steps between evaluations, or their share."})
    save_strategy: str = field(default="steps", metadata={"help": "When to save: no, steps, epoch or best."})
    save_steps: float = field(default=0.05, metadata={"help": "Steps between checkpoints, or their share."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept; the best is one of them."})
    logging_steps: float = field(default=0.01, metadata={"help": "Steps between log lines, or their share."})
    load_best_model_at_end: bool | None = field(
        default=None,
        metadata={"help": "End with the best checkpoint; whenever evaluating and saving go together, when not given."},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every adapter takes part in every step, so nothing need be looked for."}
    )
    dataloader_pin_memory: bool | None = field(
        default=None, metadata={"help": "Batches in pinned memory; where there is an accelerator, when not given."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "The training stops at a loss that is not finite, and hides none."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Early stopping counts on when a training is resumed."}
    )

    # A number of its own, unlike the other rates: a step of Adam at 1e-3, where adapters of a small model learn well, moves
    # the global fusion's temperature, 100 + 1e5·t, by 100.
    fusion_learning_rate: float | None = field(
        default=3e-5,
        metadata={"help": "Peak learning rate of the source fusion, where there is one; null: as the others."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a better one."}
    )
    frozen_dtype: str | None = field(
        default=None,
        metadata={"help": "Keep the frozen parts in float32, bfloat16 or float16; as loaded if not given."},
    )
    light_checkpoints: bool = field(
        default=True, metadata={"help": "Checkpoints hold the adapters only; tall_hf.load_light loads them."}
    )
    allow_changed_settings: bool = field(
        default=False, metadata={"help": "Resume although settings or data differ from those of the checkpoint."}
    )

    def __post_init__(self):
        self._check()
        # Without an accelerator, processes that were launched together find each other only if told so.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.bf16 is None:
            self.bf16 = not self.use_cpu and not self.fp16 and is_torch_bf16_gpu_available()
        elif self.bf16 and self.use_cpu:
            warn_of_slow_bfloat16("leaving out `bf16`")
        if self.dataloader_pin_memory is None:
            self.dataloader_pin_memory = not self.use_cpu and torch.accelerator.is_available()
        evaluating, saving = IntervalStrategy(self.eval_strategy).value, SaveStrategy(self.save_strategy).value
        if self.load_best_model_at_end is None:
            self.load_best_model_at_end = evaluating != "no" and saving in (evaluating, SaveStrategy.BEST.value)
        if saving == SaveStrategy.BEST.value:
            self.metric_for_best_model = self.metric_for_best_model or "loss"
        if self.early_stopping_patience is not None:
            if evaluating == "no":
                raise ValueError(
                    '`early_stopping_patience` needs evaluations: set `eval_strategy` to "steps" or "epoch".'
                )
            self.metric_for_best_model = self.metric_for_best_model or "loss"
        super().__post_init__()
        if self.data_seed is None:
            self.data_seed = self.seed

    def _check(self):
        _check_number("gradient_accumulation_steps", self.gradient_accumulation_steps, 1, whole=True)
        if self.max_steps == 0 or (self.max_steps < 0 and not self.num_train_epochs > 0):
            raise ValueError(
                f"Nothing would be trained with max_steps={self.max_steps} and num_train_epochs={self.num_train_epochs}: "
                "`num_train_epochs` must be above 0, or `max_steps` at least 1, which goes before it."
            )
        if self.train_sampling_strategy not in SAMPLING_STRATEGIES:
            raise ValueError(
                f"`train_sampling_strategy` must be one of {', '.join(map(repr, SAMPLING_STRATEGIES))}, got "
                f"{self.train_sampling_strategy!r}."
            )
        _check_number("learning_rate", self.learning_rate, 0)
        _check_number("fusion_learning_rate", self.fusion_learning_rate, 0)
        _check_number("early_stopping_patience", self.early_stopping_patience, 1, whole=True)
        if self.frozen_dtype is not None and self.frozen_dtype not in FROZEN_DTYPES:
            raise ValueError(
                f"`frozen_dtype` must be one of {', '.join(map(repr, FROZEN_DTYPES))} or None, got {self.frozen_dtype!r}."
            )
        if self.bf16_full_eval or self.fp16_full_eval:
            raise ValueError(
                "`bf16_full_eval` and `fp16_full_eval` would round the trained weights to 16 bits for good. With `bf16` or "
                "`fp16` evaluation computes in 16 bits and rounds nothing; leave them out."
            )
        if self.push_to_hub and self.light_checkpoints and HubStrategy(self.hub_strategy) is not HubStrategy.END:
            raise ValueError(
                "`push_to_hub` would publish light checkpoints, which do not load by themselves. Set "
                '`light_checkpoints=False`, or `hub_strategy="end"` to push the whole model once.'
            )


@dataclass
class TALLTrainingArguments(AdapterTrainingArguments):
    """How the adapters of a TALL are trained.

    The paper (section on training) gives AdamW, 5e-5 with a cosine, clipping, mixed precision, and the best checkpoint by
    evaluation loss; its code gives the 5 epochs of batch 8. The short warm-up is ours.

    Raises:
        ValueError: for a value that is out of range or contradicts another one.
    """

    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate of the adapters."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps of warm-up, or their share if below 1."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Times the data is read."})

    alignment_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Peak learning rate of the two dimension alignments; as the others if not given."},
    )
    gate_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Peak learning rate of a gated bridge's gate, one number that has to move far; likewise."},
    )
    lora_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of LoRA, where there is any; as the others if not given."}
    )
    unfreeze: list[str] | None = field(
        default=None,
        metadata={"help": "Modules of the frozen parts to train as well, such as decoder.layers.-1 or llm.layers.-1."},
    )
    unfreeze_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of what `unfreeze` names; as the others if not given."}
    )
    loss_positions: str = field(
        default="last_word",
        metadata={"help": "What is learned: last_token (the paper), last_word, last_n, continuation or all."},
    )
    last_n: int | None = field(default=None, metadata={"help": "How many tokens last_n learns."})
    loss_curriculum: float = field(
        default=0.0,
        metadata={"help": "Share of the training, in [0, 1), that learns all tokens before loss_positions alone."},
    )

    def _check(self):
        if self.loss_positions not in LOSS_POSITIONS:
            raise ValueError(
                f"`loss_positions` must be one of {', '.join(map(repr, LOSS_POSITIONS))}, got {self.loss_positions!r}."
            )
        if (self.loss_positions == "last_n") != (self.last_n is not None):
            raise ValueError(
                f'`last_n` goes with `loss_positions="last_n"`, and only with it; got {self.last_n!r} with '
                f"{self.loss_positions!r}."
            )
        _check_number("last_n", self.last_n, 1, whole=True)
        super()._check()
        _check_number("alignment_learning_rate", self.alignment_learning_rate, 0)
        _check_number("gate_learning_rate", self.gate_learning_rate, 0)
        _check_number("lora_learning_rate", self.lora_learning_rate, 0)
        _check_number("unfreeze_learning_rate", self.unfreeze_learning_rate, 0)
        if self.unfreeze is not None and not (
            isinstance(self.unfreeze, list) and all(isinstance(name, str) for name in self.unfreeze)
        ):
            raise ValueError(
                f"`unfreeze` must be a list of modules' names, such as ['decoder.layers.-1'], got {self.unfreeze!r}."
            )
        if self.unfreeze_learning_rate is not None and not self.unfreeze:
            raise ValueError("`unfreeze_learning_rate` has nothing to train: set `unfreeze`, or leave it out.")
        _check_number("loss_curriculum", self.loss_curriculum, 0)
        if self.loss_curriculum >= 1:
            raise ValueError(
                f"`loss_curriculum` is a share of the training below 1, got {self.loss_curriculum}; to learn all tokens "
                'all the time set `loss_positions="all"`.'
            )
        if self.loss_curriculum and self.loss_positions == "all":
            raise ValueError('`loss_curriculum` begins with "all", so with `loss_positions="all"` leave it at 0.')
        if self.loss_curriculum and self.loss_positions == "continuation":
            raise ValueError(
                "`loss_curriculum` cuts its stages out of whole sentences, where nothing shows what the source side has "
                'read; with `loss_positions="continuation"` leave it at 0.'
            )


@dataclass
class LayerFusionTrainingArguments(AdapterTrainingArguments):
    """How the fusion, mapping and end vector of a LayerFusionForCausalLM are trained.

    The values are those of the paper's XNLI experiment (arXiv 2508.09091): AdamW with betas 0.8 and 0.999, 3e-5 with a
    cosine and 5% of warm-up, 3 epochs of batch 8.

    Raises:
        ValueError: for a value that is out of range or contradicts another one.
    """

    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate of what is trained."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps of warm-up, or their share if below 1."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Times the data is read."})
    adam_beta1: float = field(default=0.8, metadata={"help": "AdamW's first beta."})
    weight_decay: float = field(default=3e-7, metadata={"help": "AdamW's weight decay."})


def _check_number(name, value, least, whole=False):
    if value is None:
        return
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
        raise ValueError(
            f"`{name}` must be {'a whole number' if whole else 'a number'} of at least {least}, got {value!r}."
        )
