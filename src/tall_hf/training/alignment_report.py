"""How the dimension alignments are pretrained, and what came of it."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from tall_hf.files import atomic_write

from .plot import plot_alignments


logger = logging.get_logger(__name__)

REPORT_NAME = "alignment_pretraining"
OBJECTIVES = ("autoencoder", "embeddings")


@dataclass(frozen=True)
class AlignmentSettings:
    """How the alignments are pretrained; the learning rate is the paper's, schedule and clipping are its code's.

    Attributes:
        objective: "autoencoder", the paper's, for both alignments; or "embeddings", for alignment 2 to write what the HR→LR
            translator's own encoder would read of the translation.
        learning_rate: AdamW's at the start.
        batch_size: sentences in a batch.
        max_epochs: where to stop at the latest.
        validation_share: share of the sentences that are kept out of training, to steer the schedule and to report on.
        max_sentences: use only so many sentences, drawn by `seed`; all when not given.
        max_grad_norm: gradient clipping.
        plateau_factor: what the learning rate is multiplied by after `plateau_patience` epochs without gain.
        plateau_patience: see `plateau_factor`.
        stop_patience: stop after so many epochs without a lower validation loss.
        seed: draws the validation sentences, the mirrors' first weights, dropout and the order of the batches.

    Raises:
        ValueError: for a value out of its range.
    """

    objective: str = "autoencoder"
    learning_rate: float = 1e-3
    batch_size: int = 64
    max_epochs: int = 100
    validation_share: float = 0.05
    max_sentences: int | None = None
    max_grad_norm: float = 1.0
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    stop_patience: int = 10
    seed: int = 0

    def __post_init__(self):
        if self.objective not in OBJECTIVES:
            raise ValueError(f"`objective` must be one of {', '.join(map(repr, OBJECTIVES))}, got {self.objective!r}.")
        for name in ("learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}.")
        for name in ("validation_share", "plateau_factor"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be between 0 and 1, got {getattr(self, name)}.")
        for name in ("batch_size", "max_epochs", "stop_patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.max_sentences is not None and self.max_sentences < 2:
            raise ValueError(
                f"`max_sentences` must be at least 2, got {self.max_sentences}: one trains, one validates."
            )


@dataclass(frozen=True)
class AlignmentReport:
    """What pretraining made of one alignment.

    Attributes:
        history: one entry an epoch, epoch 0 being before training, with `epoch`, `train_loss` (not for epoch
            0), `validation_loss`, `explained_variance` and `learning_rate`.
        best_epoch: the epoch whose weights were kept, that of the lowest validation loss.
        stopped_early: whether `stop_patience` ended it, rather than `max_epochs`.
        share_with_target: of the held-out sentences' tokens, the share that had something to learn: all, but for the
            objective "embeddings", by which a token without letters has nothing, nor any of a text that the LLM's tokenizer
            does not give back as it was.
    """

    history: list[dict[str, float | int | None]]
    best_epoch: int
    stopped_early: bool
    share_with_target: float = 1.0

    @property
    def explained_variance(self) -> tuple[float, float]:
        """Before training, and of the weights that were kept; see `alignment.prediction_error`."""
        return tuple(self.history[epoch]["explained_variance"] for epoch in (0, self.best_epoch))


@dataclass(frozen=True)
class PretrainingReport:
    """What `pretrain_alignments` did: its settings, how many sentences it read, and a report on each alignment."""

    settings: AlignmentSettings
    train_sentences: int
    validation_sentences: int
    alignments: dict[str, AlignmentReport]

    def save(self, folder: str | os.PathLike) -> None:
        """Write `alignment_pretraining.json` and, where matplotlib is installed, a plot beside it, into `folder`."""
        content = dataclasses.asdict(self)
        for name, report in self.alignments.items():
            before, after = report.explained_variance
            content["alignments"][name]["explained_variance"] = {"before": before, "after": after}
        path = Path(folder) / f"{REPORT_NAME}.json"
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        try:
            plot_alignments(self.alignments, path.with_suffix(".png"))
        except ImportError as error:
            logger.warning(f"No plot of this pretraining was drawn. {error}")
