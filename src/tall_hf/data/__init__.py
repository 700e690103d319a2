"""From text to training batches: what happens to a corpus before the Trainer sees it."""

from .collator import LastTokenCollator, LayerFusionCollator
from .corpus import CorpusCounts, CorpusSettings, build_corpus, in_validation
from .prepare import load_prepared, prepare
from .translation import translate_corpus, translator_fingerprint
from .words import normalize, split_last_word, strip_punctuation


__all__ = [
    "CorpusCounts",
    "CorpusSettings",
    "LastTokenCollator",
    "LayerFusionCollator",
    "build_corpus",
    "in_validation",
    "load_prepared",
    "normalize",
    "prepare",
    "split_last_word",
    "strip_punctuation",
    "translate_corpus",
    "translator_fingerprint",
]
