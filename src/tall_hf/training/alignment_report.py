"""What came of pretraining the dimension alignments."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from tall_hf.files import write_json

from .alignment_settings import AlignmentSettings
from .plot import plot_alignments


logger = logging.get_logger(__name__)

REPORT_NAME = "alignment_pretraining"


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
        """Before training, and of the weights that were kept; see `alignment_run.prediction_error`."""
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
        write_json(path, content)
        try:
            plot_alignments(self.alignments, path.with_suffix(".png"))
        except ImportError as error:
            logger.warning(f"No plot of this pretraining was drawn. {error}")
