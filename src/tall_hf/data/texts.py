"""The texts of a file or a dataset, one after another, as they are; what is wrong with one is said with its place."""

import gzip
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, load_dataset


TEXT_SUFFIXES = (".txt", ".text")
# Suffix to the loader of `datasets` and its options: text stays text ("NA" is a word), and quotes in a TSV are only quotes.
TABLE_LOADERS = {
    ".csv": ("csv", {"keep_default_na": False, "encoding": "utf-8"}),
    ".tsv": ("csv", {"keep_default_na": False, "encoding": "utf-8", "sep": "\t", "quoting": 3}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
}


def file_kind(path: str | os.PathLike) -> str:
    """The suffix that tells what a file holds, such as ".csv": of "a.csv.gz" it is that before the last."""
    path = Path(path)
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


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
        kind = file_kind(source)
        if kind not in (*TEXT_SUFFIXES, *TABLE_LOADERS):
            raise ValueError(
                f"{source} ends in {source.suffix or 'nothing'!r}; a corpus is a file that ends in "
                f"{', '.join((*TEXT_SUFFIXES, *TABLE_LOADERS))}, or in one of these and .gz."
            )
        if not source.is_file():
            raise FileNotFoundError(f"There is no file {source}.")
        if kind in TEXT_SUFFIXES:
            if named:
                raise ValueError(f"{source} is plain text and has no column {named[0]!r}; leave the column out.")
            return ((line, None) for line in _lines(source))
        for _ in _lines(source):  # the loaders would not say where a byte is wrong
            pass
        loader, options = TABLE_LOADERS[kind]
        rows = load_dataset(loader, data_files=str(source), split="train", streaming=True, **options)
        return _of_file(source, rows, "text" if column is None else column, group_column)
    if isinstance(source, Dataset | IterableDataset):
        return _columns(source, "text" if column is None else column, group_column)
    if named:
        raise ValueError(f"An iterable of texts has no column {named[0]!r}; leave the column out.")
    return _checked((text, None) for text in source)


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
