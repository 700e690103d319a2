"""How the dimension alignments are pretrained."""

from dataclasses import dataclass


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
        plateau_factor: what the learning rate is multiplied by after more than `plateau_patience` epochs without gain, one
            below a ten-thousandth being none.
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
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}.")
        for name in ("validation_share", "plateau_factor"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be between 0 and 1, got {getattr(self, name)}.")
        for name in ("batch_size", "max_epochs", "stop_patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.plateau_patience < 0:
            raise ValueError(f"`plateau_patience` must be at least 0, got {self.plateau_patience}.")
        if self.max_sentences is not None and self.max_sentences < 2:
            raise ValueError(
                f"`max_sentences` must be at least 2, got {self.max_sentences}: one trains, one validates."
            )
