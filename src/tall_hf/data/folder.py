"""A folder of prepared rows: its splits, and a report that is put there last, so that a folder which has it is whole."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, load_from_disk

from tall_hf.files import LOCK_NAME, read_json


ROWS_AT_A_TIME = 1000


def check_prepared_output(folder: str | os.PathLike, command: str, *names: str) -> Path:
    """`folder` as a path, if rows may be prepared there: it is new, empty, or one of an earlier call.

    Args:
        folder: where to prepare.
        command: which prepares, for the error.
        names: of what it writes there; any of them tells its folder, whole or not, from another.

    Raises:
        FileExistsError: it is anything else.
    """
    folder = Path(folder)
    if folder.exists():
        entries = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
        if not (entries <= {LOCK_NAME} or entries & {*names}):
            raise FileExistsError(f"{folder} exists and holds no rows of `{command}`; name a new or an empty folder.")
    return folder


def read_report(folder: Path, name: str) -> dict | None:
    """The report of that name in a folder; None where there is none, ValueError where it is damaged."""
    report = folder / name
    return read_json(report) if report.is_file() else None


def required_report(folder: Path, name: str, command: str) -> dict:
    """The report of that name in a folder; FileNotFoundError, which names the command to run, where there is none."""
    report = read_report(folder, name)
    if report is None:
        raise FileNotFoundError(
            f"{folder} has no {name}, so it was not prepared, or not to its end; run `{command}` (again)."
        )
    return report


def tokenise(texts: Dataset, make_rows: Callable[[dict], dict], features: Features, folder: Path) -> Dataset:
    """Rows that `make_rows` makes of each batch of texts, written to an Arrow file beside `folder`, for `save_split`."""
    return texts.map(
        make_rows,
        batched=True,
        batch_size=ROWS_AT_A_TIME,
        remove_columns=texts.column_names,
        features=features,
        cache_file_name=str(folder.with_name(f"{folder.name}.arrow")),
        load_from_cache_file=False,
        desc=f"Tokenising {folder.name}",
    )


def save_split(rows: Dataset, fingerprint: str, folder: Path) -> None:
    """Save the rows of `tokenise` in a folder, under a fingerprint that stands for what they were made of."""
    # `map` reopens its file under a fingerprint made of the time.
    Dataset(rows.data, info=rows.info, fingerprint=fingerprint).save_to_disk(folder)


def put_in_place(staging: Path, output: Path, results: Iterable[str], report: str):
    """Move results from `staging` to the folder, its report last: without it the folder counts as unfinished."""
    (output / report).unlink(missing_ok=True)
    for name in results:
        if (output / name).exists():
            shutil.rmtree(output / name)
        if (staging / name).exists():
            (staging / name).rename(output / name)
    (staging / report).rename(output / report)


def load_splits(folder: Path) -> DatasetDict:
    """The splits `train` and, if there is one, `validation`, in mapped memory."""
    names = [name for name in ("train", "validation") if (folder / name).is_dir()]
    return DatasetDict({name: load_from_disk(str(folder / name)) for name in names})
