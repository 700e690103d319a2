"""Training of a causal language model for an approach: short trials of settings, then the best of them in full."""

import dataclasses
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from tall_hf.files import read_json, staged_folder, write_json
from tall_hf.measuring.device import free_memory
from tall_hf.modeling.text_rows_tall import pad_rows
from tall_hf.training.checkpoint_rotation import StepwiseRotation
from tall_hf.training.checkpoints import last_checkpoint

from ..approach import TrainingText, check_training
from .language_model import encode_words, padding_token


logger = logging.getLogger(__name__)

LOSSES = ("last_word", "all")
FIT_NAME = "fit.json"
MODEL_FOLDER = "model"
_CHECKPOINTS = "checkpoints"
_FURTHER = 4
_PASSING_FILES = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state*.pth",
    "scaler.pt",
    "training_args.bin",
    "trainer_state.json",
)


@dataclass(frozen=True)
class TuningRecipe:
    """How a language model is trained, and what is tried before.

    Every learning rate is tried for `trial_steps` with the first loss, and further rates while the best one is the highest
    or the lowest that was tried; that rate is tried with the other losses. The pair with the lowest validation loss is
    trained in full. A single pair needs no trial. Validation loss is that of the last word, whatever is learned from.

    Attributes:
        learning_rates: peaks to try; reached after `warmup`, a cosine leads back to zero.
        further_trials: how many rates beyond those to try at most, each 4 times the highest or a quarter of the lowest.
        losses: what to learn from: "last_word" alone, its end included, or "all" of the sentence.
        batch_size: sentences a step.
        epochs: times through the training text in the full training.
        max_steps: steps of the full training, instead of `epochs`.
        trial_steps: of each trial.
        evaluations: how often the full training is evaluated and saved; the best of them is kept.
        validation_sentences: how many, of the first, are evaluated.
        warmup: share of the steps.
        group_by_length: put sentences of similar length into a step, which spares padding where lengths differ much.
        bf16: compute in bfloat16 where it is safe; the weights that learn stay in float32.
        seed: of the order of the sentences, dropout and fresh weights.
    """

    learning_rates: tuple[float, ...] = (1e-5, 5e-5, 2e-4)
    further_trials: int = 3
    losses: tuple[str, ...] = LOSSES
    batch_size: int = 16
    epochs: float = 1.0
    max_steps: int | None = None
    trial_steps: int = 200
    evaluations: int = 10
    validation_sentences: int = 1000
    warmup: float = 0.1
    group_by_length: bool = False
    bf16: bool = False
    seed: int = 0

    def __post_init__(self):
        for name in ("batch_size", "trial_steps", "evaluations", "validation_sentences"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, or None for `epochs` of them; got {self.max_steps}.")
        if self.epochs <= 0 or self.further_trials < 0:
            raise ValueError(
                "`epochs` must be above 0 and `further_trials` at least 0; "
                f"got {self.epochs} and {self.further_trials}."
            )
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"`learning_rates` must be above 0, and at least one; got {self.learning_rates}.")
        if not self.losses or not set(self.losses) <= set(LOSSES):
            raise ValueError(f"`losses` must be some of {', '.join(map(repr, LOSSES))}; got {self.losses}.")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


@dataclass(frozen=True)
class WordCollator:
    """Batches of rows with `text` and the `word` behind it, padded on the right; the word's end is learned too.

    Attributes:
        tokenizer: the language model's.
        loss: which tokens are labels, one of `LOSSES`.
        max_length: longer rows lose their beginning; no limit when not given.
    """

    tokenizer: Any
    loss: str
    max_length: int | None = None

    def __call__(self, rows: list[dict[str, str]]) -> dict[str, torch.Tensor]:
        prefixes, wholes = encode_words(self.tokenizer, [r["text"] for r in rows], [r["word"] for r in rows])
        end = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        ids = [whole + end for whole in wholes]
        hidden = [len(prefix) if self.loss == "last_word" else 0 for prefix in prefixes]
        labels = [[-100] * count + row[count:] for count, row in zip(hidden, ids, strict=True)]
        if self.max_length is not None:
            ids, labels = ([row[-self.max_length :] for row in part] for part in (ids, labels))
        input_ids, attention_mask = pad_rows(ids, padding_token(self.tokenizer), "right")
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": pad_rows(labels, -100, "right")[0],
        }


def words_of(training: TrainingText | None, name: str) -> tuple[Dataset, Dataset]:
    """Training and validation rows of `text` and `word`, in the low-resource language.

    Raises:
        ValueError: there is no training text, or no validation text to choose settings by.
    """
    check_training(training, name, validation=True)
    columns = {"truncated": "text", "missing_word": "word"}
    train, validation = (
        split.select_columns(list(columns)).rename_columns(columns) for split in (training.train, training.validation)
    )
    return train, validation


def train_causal(
    make_model: Callable[[], nn.Module],
    tokenizer,
    train: Dataset,
    validation: Dataset,
    recipe: TuningRecipe,
    folder: Path,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Try settings, train with the best of them, and leave the best weights in `folder/model`; or find them there.

    After an interruption a finished trial is not made again, and the full training goes on behind its last checkpoint.

    Args:
        make_model: gives a fresh model to train, in float32 where it learns: a language model or a PeftModel.
        tokenizer: its tokenizer.
        train, validation: rows of `text` and `word`.
        recipe: what to try and how long to train.
        folder: for what is kept; its name must stand for all that decides what is learned.
        max_length: tokens a row at most.

    Returns:
        What was tried and what came of it: `trials`, the chosen `learning_rate` and `loss`, `steps`, validation losses
        (`loss_before`, `validation_loss`), `trained_parameters` and `seconds`.

    Raises:
        FloatingPointError: no trial has a finite loss.
    """
    state_file = folder / FIT_NAME
    state = {"loss_before": None, "trials": [], "learned": None}
    if state_file.exists():
        state = read_json(state_file)
    if state["learned"] is not None:
        return state["learned"]
    validation = validation.select(range(min(len(validation), recipe.validation_sentences)))
    if recipe.group_by_length:
        train, validation = train.map(_with_length), validation.map(_with_length)

    def trainer(loss, learning_rate, steps, **options):
        torch.manual_seed(recipe.seed)
        made = _WordTrainer(
            model=make_model(),
            args=_arguments(recipe, folder / _CHECKPOINTS, learning_rate, steps, **options),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=WordCollator(tokenizer, loss, max_length),
        )
        made.remove_callback(PrinterCallback)  # whoever runs this shows progress
        return made

    while candidate := _next_trial(recipe, state["trials"]):
        rate, loss = candidate
        began = time.monotonic()
        trial = trainer(loss, rate, recipe.trial_steps)
        if state["loss_before"] is None:
            state["loss_before"] = _validation_loss(trial)
        trial.train()
        result = {"validation_loss": _validation_loss(trial), "seconds": round(time.monotonic() - began, 1)}
        state["trials"].append({"learning_rate": rate, "loss": loss, **result})
        write_json(state_file, state)
        logger.info("Tried a learning rate of %g with loss %r: %s", rate, loss, result)
        del trial
        free_memory()
    rate, loss = _best(state["trials"]) if state["trials"] else (recipe.learning_rates[0], recipe.losses[0])

    steps = recipe.max_steps or max(1, math.ceil(recipe.epochs * len(train) / recipe.batch_size))
    every = max(1, steps // recipe.evaluations)
    steps -= steps % every  # so that the last step is evaluated
    began = time.monotonic()
    full = trainer(loss, rate, steps, save_strategy="steps", save_steps=every, eval_strategy="steps", eval_steps=every)
    if state["loss_before"] is None:
        state["loss_before"] = _validation_loss(full)
        write_json(state_file, state)
    torch.manual_seed(recipe.seed)  # whatever was evaluated before
    full.train(resume_from_checkpoint=last_checkpoint(folder / _CHECKPOINTS))
    if full.state.best_model_checkpoint is None:
        raise FloatingPointError(
            f"The validation loss of {folder} was never finite, at a learning rate of {rate:g}; lower `learning_rates`."
        )
    learned = {
        "learning_rate": rate,
        "loss": loss,
        "steps": full.state.global_step,
        "sentences_read": full.state.global_step * recipe.batch_size,
        "loss_before": state["loss_before"],
        "validation_loss": full.state.best_metric,
        "trained_parameters": sum(p.numel() for p in full.model.parameters() if p.requires_grad),
        "trials": state["trials"],
        "seconds": round(time.monotonic() - began + sum(trial["seconds"] for trial in state["trials"]), 1),
    }
    _keep(folder / _CHECKPOINTS / Path(full.state.best_model_checkpoint).name, folder / MODEL_FOLDER)
    del full
    free_memory()
    write_json(state_file, {**state, "learned": learned})
    shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
    return learned


class _WordTrainer(StepwiseRotation, Trainer):
    """Evaluates by the last word, whatever it learns from."""

    def get_eval_dataloader(self, eval_dataset=None):
        learning = self.data_collator
        self.data_collator = dataclasses.replace(learning, loss="last_word")
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = learning


def _with_length(row: dict[str, str]) -> dict[str, int]:
    """The Trainer's name for it; letters do, for it only compares."""
    return {"length": len(row["text"]) + len(row["word"])}


def _arguments(recipe: TuningRecipe, folder: Path, learning_rate: float, steps: int, **options) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        learning_rate=learning_rate,
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(recipe.warmup * steps),
        bf16=recipe.bf16,
        train_sampling_strategy="group_by_length" if recipe.group_by_length else "random",
        use_cpu=not torch.accelerator.is_available(),  # or bfloat16 is refused there
        seed=recipe.seed,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        save_total_limit=1,  # and the best
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,  # the collator reads text
        prediction_loss_only=True,
        label_names=["labels"],
        dataloader_pin_memory=False,
        **{"save_strategy": "no", "eval_strategy": "no", **options},
    )


def _validation_loss(trainer: Trainer) -> float | None:
    """Cross-entropy of the last words, a mean over batches of each one's mean over tokens; None if it is not finite.

    It chooses between settings of one approach, whose batches are the same; a TALL's is a mean over all tokens.
    """
    loss = trainer.evaluate()["eval_loss"]
    return loss if math.isfinite(loss) else None


def _next_trial(recipe: TuningRecipe, trials: list[dict[str, Any]]) -> tuple[float, str] | None:
    """The learning rate and loss to try after these trials; None when enough were tried."""
    if len(recipe.learning_rates) * len(recipe.losses) == 1:
        return None
    first, *others = recipe.losses
    tried = {trial["learning_rate"]: trial["validation_loss"] for trial in trials if trial["loss"] == first}
    for rate in recipe.learning_rates:
        if rate not in tried:
            return rate, first
    finite = {rate: loss for rate, loss in tried.items() if loss is not None}
    # Where all diverge, the lowest is the nearest to one that does not.
    best = min(finite, key=finite.get) if finite else min(tried)
    if finite and len(tried) < len(recipe.learning_rates) + recipe.further_trials and len(recipe.learning_rates) > 1:
        # The best of those tried, if it stands at their end, says that one beyond it may be better.
        if best == max(tried):
            return best * _FURTHER, first
        if best == min(tried):
            return best / _FURTHER, first
    for loss in others:
        if (best, loss) not in {(trial["learning_rate"], trial["loss"]) for trial in trials}:
            return best, loss
    return None


def _best(trials: list[dict[str, Any]]) -> tuple[float, str]:
    finite = [trial for trial in trials if trial["validation_loss"] is not None]
    if not finite:
        rates = ", ".join(f"{trial['learning_rate']:g}" for trial in trials)
        raise FloatingPointError(f"No trial has a finite validation loss, at learning rates of {rates}; lower them.")
    best = min(finite, key=lambda trial: trial["validation_loss"])
    return best["learning_rate"], best["loss"]


def _keep(checkpoint: Path, folder: Path):
    """Make a checkpoint's weights, without what only training needs, the contents of `folder`."""
    with staged_folder(folder) as aside:
        shutil.copytree(checkpoint, aside, ignore=shutil.ignore_patterns(*_PASSING_FILES))
