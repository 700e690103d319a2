"""Arrow files that are written whole or not at all, and datasets that map them into memory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable


# What an unfinished file's name ends in; a killed process leaves one behind, which nobody reads.
UNFINISHED = ".unfinished"


@contextlib.contextmanager
def arrow_writer(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchStreamWriter]:
    """A writer whose file appears at `path` when all of it is on the disk; after an error nothing of it remains.

    Raises:
        OSError: the file cannot be written, for instance because the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with open(aside, "wb") as file:
            with pa.ipc.new_stream(file, schema) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


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
