"""From text to training batches: what happens to a corpus before the Trainer sees it."""

from .collator import LastTokenCollator


__all__ = ["LastTokenCollator"]
