"""Arrow files that are written whole or not at all, and datasets that map them into memory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable

from tall_hf.files import atomic_write


@contextlib.contextmanager
def arrow_writer(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchStreamWriter]:
    """A writer whose file appears at `path` when all of it is on the disk; after an error nothing of it remains.

    Raises:
        OSError: the file cannot be written, for instance because the disk is full.
    """
    with atomic_write(path) as aside, open(aside, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        yield writer


def read_arrow(path: Path, fingerprint: str) -> Dataset:
    """The file as a dataset in mapped memory.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        table = MemoryMappedTable.from_file(str(path))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and run the same command again.") from error
    return Dataset(table, fingerprint=fingerprint)
