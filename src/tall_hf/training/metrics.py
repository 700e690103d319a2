"""The metrics of the missing last word, computed while a training evaluates."""

import torch


def predictions_and_losses(logits, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Of logits (batch, length, vocabulary) what metrics need: most probable tokens and cross-entropy, (batch, length)."""
    losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return logits.argmax(-1), losses


def last_word_metrics(evaluation) -> dict[str, float]:
    """Metrics of `predictions_and_losses`, over rows whose labels are the tokens of the last word."""
    (tokens, losses), labels = evaluation.predictions, evaluation.label_ids
    learned = labels != -100
    right = tokens == labels
    return {
        "last_word_accuracy": float((right | ~learned).all(axis=1).mean()),
        "token_accuracy": float(right[learned].mean()),
        "token_loss": float(losses[learned].astype("float64").mean()),
    }


def check_best_metric(name: str | None) -> None:
    """ValueError unless `name`, the metric of the best model, is one that an evaluation gives."""
    known = ("loss", "perplexity", "last_word_accuracy", "token_accuracy")
    if name is not None and name.removeprefix("eval_") not in known:
        raise ValueError(f"`metric_for_best_model` must be one of {', '.join(map(repr, known))}, got {name!r}.")
