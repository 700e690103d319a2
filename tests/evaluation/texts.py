"""Training text for approaches that learn: sentences of the little world, as `tall prepare` makes them."""

from datasets import Dataset

from tall_hf.evaluation.approach import TrainingText
from tall_hf.microworld import World


def world_text(train: int, validation: int, kind: str | None = None) -> TrainingText:
    """So many sentences for each; `kind` is one of the world's kinds of relations."""
    records = [r for r in World().records(0)[0] if kind is None or r.kind == kind]
    rows = [
        {
            "sentence": r.text,
            "truncated": r.truncated,
            "missing_word": r.missing_word,
            "translation": r.english_truncated + ".",
        }
        for r in records[: train + validation]
    ]
    splits = Dataset.from_list(rows[:train]), Dataset.from_list(rows[train:]) if validation else None
    return TrainingText(*splits, fingerprint=f"{train} {validation} {kind}")
