"""From texts to clean, distinct sentences, each divided into its beginning and its last word."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, IterableDataset
from rich.table import Table

from tall_hf.measuring.tables import counts_table

from .arrow import arrow_writer, read_arrow
from .texts import read_texts
from .words import count_words, divide_at_last_word, divide_at_word, normalize, split_name


_SCHEMA = pa.schema(
    [
        ("sentence", pa.string()),
        ("truncated", pa.string()),
        ("missing_word", pa.string()),
        ("is_validation", pa.bool_()),
    ]
)
_ROWS_AT_A_TIME = 1000
TRUNCATIONS = ("last_word", "random_word", "none")


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """Which sentences are taken, and how they are divided.

    Attributes:
        min_words: sentences of fewer words are left out; at least 2, so that something stands before the last word.
        max_words: sentences of more words are left out.
        strip_niqqud: remove Hebrew vowel points and cantillation marks.
        validation_share: share of the sentences that go to validation, from 0 (none) to below 1.
        split: divides a sentence into words, in order, each a part of the sentence, for scripts without spaces.
        truncation: what is taken away of a training sentence: its "last_word", or all from a "random_word" on, drawn by
            the sentence's hash and with `min_words` - 1 words before it. The source side then has not read, and the
            target side can learn (`loss_positions="continuation"`), several words of each sentence. With "none" the
            source side reads it whole, and the adapters can learn to write it (`loss_positions="all"`), a warm-up for
            the task. Validation sentences always lose their last word alone, which is the task.
    """

    min_words: int = 5
    max_words: int = 30
    strip_niqqud: bool = False
    validation_share: float = 0.02
    split: Callable[[str], list[str]] = str.split
    truncation: str = "last_word"

    def __post_init__(self):
        if not 2 <= self.min_words <= self.max_words:
            raise ValueError(
                "`min_words` must be at least 2 and at most `max_words`, got "
                f"min_words={self.min_words}, max_words={self.max_words}."
            )
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"`validation_share` must be at least 0 and below 1, got {self.validation_share}.")
        if self.truncation not in TRUNCATIONS:
            raise ValueError(
                f"`truncation` must be one of {', '.join(map(repr, TRUNCATIONS))}, got {self.truncation!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them; `split` by name, or null where it is the default."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings["split"] = split_name(self.split)
        return settings


@dataclasses.dataclass
class CorpusCounts:
    """How many texts were read, why some were left out, and where the rest went.

    Attributes:
        read: texts read.
        empty: nothing but spaces, marks and stray symbols.
        too_short, too_long: fewer words than `min_words`, more than `max_words`.
        duplicates: a sentence that had been seen, punctuation at its end aside.
        train, validation: sentences kept.
    """

    read: int = 0
    empty: int = 0
    too_short: int = 0
    too_long: int = 0
    duplicates: int = 0
    train: int = 0
    validation: int = 0

    @property
    def kept(self) -> int:
        return self.train + self.validation

    def table(self, settings: CorpusSettings) -> Table:
        """The counts for a terminal."""
        rows = (
            ("read", self.read),
            ("left out: empty", self.empty),
            (f"left out: fewer than {settings.min_words} words", self.too_short),
            (f"left out: more than {settings.max_words} words", self.too_long),
            ("left out: duplicates", self.duplicates),
            ("train", self.train),
            ("validation", self.validation),
        )
        return counts_table("Corpus", rows, self.read)


def in_validation(sentence: str, share: float) -> bool:
    """Whether a normalised sentence belongs to validation: by its hash alone, whatever else the corpus holds."""
    return int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") < share * 2**64


def clean_sentences(
    texts: Iterable[str | None], settings: CorpusSettings, counts: CorpusCounts
) -> Iterator[dict[str, Any]]:
    """Rows of `sentence` (up to and with its last word), `truncated`, `missing_word` (the next, if any) and `is_validation`.

    Only a hash of each sentence kept stays in memory.

    Args:
        texts: as `read_texts` gives them.
        settings: which to take.
        counts: counted up as texts are read.
    """
    seen = set()
    for text in texts:
        counts.read += 1
        text = normalize(text or "", settings.strip_niqqud)
        words = count_words(text, settings.split)
        if not text:
            counts.empty += 1
            continue
        if words < settings.min_words:
            counts.too_short += 1
            continue
        if words > settings.max_words:
            counts.too_long += 1
            continue
        truncated, gap, word = divide_at_last_word(text, settings.split)
        sentence = truncated + gap + word
        digest = hashlib.blake2b(sentence.encode(), digest_size=16).digest()
        if digest in seen:
            counts.duplicates += 1
            continue
        seen.add(digest)
        is_validation = in_validation(sentence, settings.validation_share)
        if is_validation:
            counts.validation += 1
        else:
            counts.train += 1
            if settings.truncation == "random_word":
                truncated, _, word = divide_at_word(sentence, _random_word(sentence, words, settings), settings.split)
            elif settings.truncation == "none":
                truncated, word = sentence, ""
        yield {
            "sentence": sentence,
            "truncated": truncated,
            "missing_word": word,
            "is_validation": is_validation,
        }


def _random_word(sentence: str, words: int, settings: CorpusSettings) -> int:
    """The index of a word, the same for the same sentence, with at least `min_words` - 1 words before it."""
    first = settings.min_words - 1
    drawn = int.from_bytes(hashlib.sha256(f"truncation {sentence}".encode()).digest()[:8], "big")
    return first + drawn % (words - first)


def build_corpus(
    source: str | os.PathLike | Dataset | IterableDataset | Iterable[str],
    path: str | os.PathLike,
    column: str | None = None,
    settings: CorpusSettings | None = None,
) -> tuple[Dataset, CorpusCounts]:
    """Clean the texts of `source` into an Arrow file, a few at a time.

    Args:
        source, column: as for `read_texts`.
        path: the Arrow file to write; whole or not at all.
        settings: which sentences to take.

    Returns:
        The dataset in mapped memory, its fingerprint being that of its rows, and the counts. `load_corpus(path)` opens
        the file again.

    Raises:
        ValueError: no sentence is left, or none for training or validation; and what `read_texts` raises.
    """
    settings = settings or CorpusSettings()
    counts = CorpusCounts()
    rows = clean_sentences(read_texts(source, column), settings, counts)
    with arrow_writer(Path(path), _SCHEMA) as writer:
        while batch := list(itertools.islice(rows, _ROWS_AT_A_TIME)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=_SCHEMA))
        _check_counts(counts, settings)
    return load_corpus(path), counts


def load_corpus(path: str | os.PathLike) -> Dataset:
    """The dataset that `build_corpus` wrote to `path`."""
    corpus = read_arrow(Path(path), fingerprint="corpus")
    digest = hashlib.sha256()
    for batch in corpus.iter(_ROWS_AT_A_TIME):
        digest.update(json.dumps(batch).encode())
    return read_arrow(Path(path), fingerprint=digest.hexdigest()[:16])


def _check_counts(counts, settings):
    if counts.kept == 0:
        reasons = {
            "empty": "without any text",
            "too_short": f"shorter than min_words={settings.min_words}",
            "too_long": f"longer than max_words={settings.max_words}",
        }
        dropped = [f"{getattr(counts, name):,} {why}" for name, why in reasons.items() if getattr(counts, name)]
        raise ValueError(
            f"Of {counts.read:,} texts none is left: {', '.join(dropped) or 'there are none'}. A corpus has one sentence "
            "of the low-resource language a line or row; pass other bounds, or split longer texts into sentences."
        )
    if counts.train == 0 or (counts.validation == 0 and settings.validation_share > 0):
        missing = "training" if counts.train == 0 else "validation"
        raise ValueError(
            f"Of the {counts.kept:,} sentences left none falls to {missing} with validation_share="
            f"{settings.validation_share}; pass another share or more text."
        )
