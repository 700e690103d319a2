"""From a text file or a dataset to clean, distinct sentences, each divided into its beginning and its last word.

The last word is defined without knowledge of any language: words stand between spaces (or are what `split` returns),
a token without a letter or a digit is no word, and punctuation around a word is not part of it.
"""

import dataclasses
import gzip
import hashlib
import itertools
import json
import os
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, load_dataset
from rich.table import Table

from .arrow import arrow_writer, read_arrow


TEXT_SUFFIXES = (".txt", ".text")
# Suffix to the loader of `datasets` and its options: text stays text ("NA" is a word), and quotes in a TSV are only quotes.
_LOADERS = {
    ".csv": ("csv", {"keep_default_na": False, "encoding": "utf-8"}),
    ".tsv": ("csv", {"keep_default_na": False, "encoding": "utf-8", "sep": "\t", "quoting": 3}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
}

# The property Bidi_Control, then what is invisible and joins nothing: soft hyphen, word joiner, byte
# order mark, emoji presentation. The zero-width joiners are letters' business in Persian and in India, and stay inside words.
_INVISIBLE = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u00ad\u2060\ufeff\ufe0e\ufe0f"
_JOINERS = "\u200c\u200d"
# Points and cantillation marks, not the punctuation between them (maqaf, paseq, sof pasuq, nun hafukha).
_NIQQUD = "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
# What is left of mark-up and tables. Only tokens of nothing else are removed: C# and snake_case are words.
_MARK_UP = frozenset("|~^*#_•·‣\\<>")

_INVISIBLE_PATTERN = re.compile(f"[{_INVISIBLE}]")
_NIQQUD_PATTERN = re.compile(f"[{_NIQQUD}]")

_SCHEMA = pa.schema(
    [
        ("sentence", pa.string()),
        ("truncated", pa.string()),
        ("missing_word", pa.string()),
        ("is_validation", pa.bool_()),
    ]
)
_ROWS_AT_A_TIME = 1000


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """Which sentences are taken, and how they are divided.

    Attributes:
        min_words: sentences of fewer words are left out; at least 2, so that something stands before the last word.
        max_words: sentences of more words are left out.
        strip_niqqud: remove Hebrew vowel points and cantillation marks.
        validation_share: share of the sentences that go to validation, from 0 (none) to below 1.
        split: divides a sentence into words, in order, each a part of the sentence, for scripts without spaces.
    """

    min_words: int = 5
    max_words: int = 30
    strip_niqqud: bool = False
    validation_share: float = 0.02
    split: Callable[[str], list[str]] = str.split

    def __post_init__(self):
        if not 2 <= self.min_words <= self.max_words:
            raise ValueError(
                "`min_words` must be at least 2 and at most `max_words`, got "
                f"min_words={self.min_words}, max_words={self.max_words}."
            )
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"`validation_share` must be at least 0 and below 1, got {self.validation_share}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them; `split` by name, or null where it is the default."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings["split"] = None if self.split is str.split else getattr(self.split, "__qualname__", repr(self.split))
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
        table = Table(title="Corpus", title_justify="left")
        table.add_column("texts")
        table.add_column("count", justify="right")
        table.add_column("share", justify="right")
        rows = (
            ("read", self.read),
            ("left out: empty", self.empty),
            (f"left out: fewer than {settings.min_words} words", self.too_short),
            (f"left out: more than {settings.max_words} words", self.too_long),
            ("left out: duplicates", self.duplicates),
            ("train", self.train),
            ("validation", self.validation),
        )
        for name, count in rows:
            table.add_row(name, f"{count:,}", f"{count / max(1, self.read):.1%}")
        return table


def normalize(text: str, strip_niqqud: bool = False) -> str:
    """Unicode NFC on one line, without control characters, bidirectional marks and stray symbols.

    Removed everywhere: control and private-use characters, bidirectional and other invisible marks, pictures and other
    symbols (Unicode category So, the degree sign aside), with `strip_niqqud` Hebrew points. Removed where they stand alone:
    signs of mark-up such as `*`, `|` and `•`. Runs of white space become one space. Applied twice it changes nothing more.
    """
    # The zero-width space is where Khmer, Lao or Thai text shows that a word ends.
    text = _INVISIBLE_PATTERN.sub("", text.replace("\u200b", " "))
    text = "".join(" " if _is_stray(char) else char for char in text)
    text = unicodedata.normalize("NFC", text)
    if strip_niqqud:
        # What a point had kept apart may compose now.
        text = unicodedata.normalize("NFC", _NIQQUD_PATTERN.sub("", text))
    tokens = (token.strip(_JOINERS) for token in text.split())
    return " ".join(token for token in tokens if not _MARK_UP.issuperset(token))


def strip_punctuation(word: str) -> str:
    """The word without punctuation around it; geresh, gershayim, apostrophe and hyphen inside it stay.

    This is what makes two words the same in evaluation: strip the answer as the missing word was stripped.
    """
    start, end = 0, len(word)
    while start < end and _is_punctuation(word[start]):
        start += 1
    while end > start and _is_punctuation(word[end - 1]):
        end -= 1
    return word[start:end]


def split_last_word(sentence: str, split: Callable[[str], list[str]] = str.split) -> tuple[str, str]:
    """Divide a sentence into what stands before its last word, and that word.

    Words are separated by white space. Tokens at the end that have no letter and no digit are dropped, and punctuation
    around the word is stripped: `אמרה: "הלכתי לבית-ספר".` becomes (`אמרה: "הלכתי`, `לבית-ספר`). So `f"{truncated} {word}"`
    is the sentence up to and with the word.

    Args:
        sentence: a sentence; `normalize` it first.
        split: divides a sentence into tokens, in order, each a part of the sentence. For scripts without spaces, such as
            Chinese or Thai, hand in a word segmenter.

    Returns:
        (truncated, word), both empty for a sentence without words; `truncated` is empty for a single word.

    Raises:
        ValueError: `split` returned a token that is not part of the sentence where it should be.
    """
    truncated, _, word = _divide(sentence, split)
    return truncated, word


def words_of(sentence: str, split: Callable[[str], list[str]] = str.split) -> list[str]:
    """The words of a normalised sentence, without the punctuation around and between them."""
    return [strip_punctuation(token) for token in split(sentence) if is_word(token)]


def count_words(sentence: str, split: Callable[[str], list[str]] = str.split) -> int:
    """How many tokens have a letter or a digit."""
    return sum(map(is_word, split(sentence)))


def is_word(token: str) -> bool:
    """Whether a token has a letter or a digit."""
    return any(unicodedata.category(char)[0] in "LN" for char in token)


def in_validation(sentence: str, share: float) -> bool:
    """Whether a normalised sentence belongs to validation: by its hash alone, whatever else the corpus holds."""
    return int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") < share * 2**64


def read_texts(
    source: str | os.PathLike | Dataset | IterableDataset | Iterable[str], column: str | None = None
) -> Iterator[str | None]:
    """The texts of a file or a dataset, one after another, as they are.

    Args:
        source: a text file with a sentence a line, a CSV, TSV, JSON or JSON-lines file (each also .gz), a dataset of the
            `datasets` library, streaming or not, or any iterable of texts.
        column: which column holds the text; `text` when not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown suffix, an empty file, a file that is not UTF-8, a column that does not exist, or a value
            that is not text.
    """
    return (text for text, _ in read_grouped_texts(source, column))


def read_grouped_texts(
    source: str | os.PathLike | Dataset | IterableDataset | Iterable[str],
    column: str | None = None,
    group_column: str | None = None,
) -> Iterator[tuple[str | None, str | None]]:
    """As `read_texts`, each text with what it is grouped by.

    Args:
        source, column: as for `read_texts`.
        group_column: which column names the group, such as a domain; every group is None when not given.

    Raises:
        FileNotFoundError, ValueError: as `read_texts`.
    """
    named = [name for name in (column, group_column) if name is not None]
    if isinstance(source, DatasetDict | IterableDatasetDict):
        raise ValueError(
            f"This is {type(source).__name__} with splits {', '.join(map(str, source))}; pass one split of it."
        )
    if isinstance(source, str | os.PathLike):
        source = Path(source)
        kind = source.with_suffix("").suffix if source.suffix == ".gz" else source.suffix
        if kind not in (*TEXT_SUFFIXES, *_LOADERS):
            raise ValueError(
                f"{source} ends in {source.suffix or 'nothing'!r}; a corpus is a file that ends in "
                f"{', '.join((*TEXT_SUFFIXES, *_LOADERS))}, or in one of these and .gz."
            )
        if not source.is_file():
            raise FileNotFoundError(f"There is no file {source}.")
        if kind in TEXT_SUFFIXES:
            if named:
                raise ValueError(f"{source} is plain text and has no column {named[0]!r}; leave the column out.")
            return ((line, None) for line in _lines(source))
        for _ in _lines(source):  # the loaders would not say where a byte is wrong
            pass
        loader, options = _LOADERS[kind]
        rows = load_dataset(loader, data_files=str(source), split="train", streaming=True, **options)
        return _of_file(source, rows, "text" if column is None else column, group_column)
    if isinstance(source, Dataset | IterableDataset):
        return _columns(source, "text" if column is None else column, group_column)
    if named:
        raise ValueError(f"An iterable of texts has no column {named[0]!r}; leave the column out.")
    return _checked((text, None) for text in source)


def clean_sentences(
    texts: Iterable[str | None], settings: CorpusSettings, counts: CorpusCounts
) -> Iterator[dict[str, Any]]:
    """Rows of `sentence` (up to and with the missing word), `truncated`, `missing_word` and `is_validation`.

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
        truncated, gap, word = _divide(text, settings.split)
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
        yield {
            "sentence": sentence,
            "truncated": truncated,
            "missing_word": word,
            "is_validation": is_validation,
        }


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


def _divide(sentence, split):
    """(truncated, the space between, word)."""
    end = len(sentence)
    for token in reversed(split(sentence)):
        start = sentence.rfind(token, 0, end)
        if start < 0 or not token:
            raise ValueError(
                f"`split` returned {token!r}, which is not part of {sentence!r} before position {end}; it must return "
                "parts of the sentence, in order."
            )
        if is_word(token):
            truncated = sentence[:start].rstrip()
            return truncated, sentence[len(truncated) : start][:1], strip_punctuation(token)
        end = start
    return "", "", ""


def _is_punctuation(char):
    category = unicodedata.category(char)
    return category[0] == "P" or category == "Sk"  # Sk: backtick and acute, which people quote with


def _is_stray(char):
    category = unicodedata.category(char)
    # Skin tones are "modifier symbols", as the acute accent is.
    return (category in ("Cc", "Cs", "Co", "So") and char != "°") or "\U0001f3fb" <= char <= "\U0001f3ff"


def _lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file; what is wrong with it is said with the place."""
    offset, number = 0, 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path} is not UTF-8: line {number}, byte {error.start + 1} of that line (offset "
                        f"{offset + error.start}{' after unpacking' if path.suffix == '.gz' else ''}) is "
                        f"0x{line[error.start]:02x}. Convert the file, for instance with `iconv -f ENCODING -t UTF-8`."
                    ) from error
                offset += len(line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error}) behind line {number}.") from error
    if number == 0:
        raise ValueError(f"{path} is empty.")


def _columns(
    dataset: Dataset | IterableDataset, column: str, group_column: str | None
) -> Iterator[tuple[str | None, str | None]]:
    rows = iter(dataset)
    first = next(rows, None)
    names = dataset.column_names or list(first or ())
    for name in (column, group_column):
        if name is not None and name not in names:
            raise ValueError(
                f"There is no column {name!r}; the columns are {', '.join(map(repr, names)) or 'not known, for there is no row'}."
            )
    rows = itertools.chain([] if first is None else [first], rows)
    groups = ((row[column], None if group_column is None else row[group_column]) for row in rows)
    return _checked((text, None if group is None else str(group)) for text, group in groups)


def _of_file(path: Path, *table) -> Iterator[tuple[str | None, str | None]]:
    """Rows of a file's table; what is wrong with one is said with the file's name, which its loader leaves out."""
    try:
        yield from _columns(*table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(rows: Iterable[tuple[Any, str | None]]) -> Iterator[tuple[str | None, str | None]]:
    for number, (text, group) in enumerate(rows, start=1):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"Row {number} holds {type(text).__name__} {text!r} where a text is expected.")
        yield text, group
