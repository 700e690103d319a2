"""From rows on the Hub or in local files to examples: a text, a prompt, the labels to choose from and the right one."""

import glob
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value, load_dataset
from huggingface_hub import hf_hub_download

from tall_hf.data.texts import TABLE_LOADERS, file_kind

from .tasks import TASKS, ClassificationTask


_LOADERS = TABLE_LOADERS | {".parquet": ("parquet", {})}
_ROWS_AT_A_TIME = 1000
# What an example is made of.
EXAMPLE = Features(
    {"text": Value("string"), "prompt": Value("string"), "answer": Value("string"), "choices": List(Value("string"))}
)
PAIR = Features({name: EXAMPLE[name] for name in ("text", "prompt", "answer")})


def read_examples(
    task: ClassificationTask,
    language: str,
    split: str = "test",
    *,
    data_files: str | os.PathLike | None = None,
    max_examples: int | None = None,
    seed: int = 0,
    skip_empty: bool = False,
    token: str | bool | None = None,
) -> Dataset:
    """The examples of a task in one language, from the Hub or from local files.

    Args:
        task: which.
        language: one of the task's languages, or that which it is trained on; with local files any.
        split: "train", "validation" or "test".
        data_files: path of local files in place of the Hub, with `{language}` and `{split}` where they differ in these, and
            with the columns that the task names: CSV, TSV, JSON, JSON lines (each also .gz) or parquet.
        max_examples: draw so many rows, the same ones each time; of parallel questions the same in every language.
        seed: of the draw.
        skip_empty: leave out rows without a text, which otherwise are an error.
        token: for private repositories.

    Returns:
        Rows of `text` (the source), `prompt`, `answer` (the right label) and `choices` (the labels).

    Raises:
        ValueError: an unknown language, split or label, a column that is missing, a text that is empty, or no rows.
        OSError: a file that is not there, or a repository that cannot be read.
    """
    data_files = task.data_files if data_files is None else str(data_files)
    if max_examples is not None and max_examples < 1:
        raise ValueError(f"`max_examples` must be at least 1, got {max_examples}.")
    if data_files is not None:
        paths = _local_files(data_files, language, split)
        rows, where = _read_files(paths, task.nested), data_files if len(paths) > 1 else paths[0]
    else:
        rows, where = _read_hub(task, language, split, token)
    if len(rows) == 0:
        raise ValueError(f"{where} has no rows.")
    rows, numbers = _draw(rows, max_examples, seed)
    return examples_of(rows, task, str(where), skip_empty, numbers)


def read_training_examples(task: ClassificationTask, language: str | None = None, **options) -> Dataset:
    """The training examples of a task: in the one language that it is trained on, if no other is named.

    Args:
        task: which; one that has no rows in that language has them from its `train_task`.
        language: another language.
        options: as for `read_examples`.
    """
    language = task.train_language if language is None else language
    if options.get("data_files") is None and task.train_task is not None:
        task = TASKS[task.train_task]
    return read_examples(task, language, "train", **options)


def read_pairs(
    path: str | os.PathLike,
    source_column: str | None = None,
    target_column: str | None = None,
    prompt: str = "",
    max_examples: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Translation pairs as examples, for MindMerger's first stage: the LLM learns to write what the source says.

    Args:
        path: a file of rows with a column for each side (CSV, TSV, JSON, JSON lines, parquet); a .tsv for which no columns are
            named has no head, and two columns: source, then target.
        source_column, target_column: "source" and "target" when not given.
        prompt: what the LLM reads behind each source.
        max_examples, seed: as for `read_examples`.

    Returns:
        Rows of `text`, `prompt` and `answer`.

    Raises:
        ValueError: a column that is missing, or a side that is empty.
        FileNotFoundError: there is no such file.
    """
    paths = _local_files(str(path).replace("{", "{{").replace("}", "}}"), "", "")
    headless = source_column is None and target_column is None
    columns = [source_column or "source", target_column or "target"]
    rows = _read_files(paths, names=columns if headless and file_kind(paths[0]) == ".tsv" else None)
    _check_columns(rows, columns, paths[0])
    rows, numbers = _draw(rows, max_examples, seed)
    texts, answers = ([_text(value) for value in rows[column]] for column in columns)
    for number, *pair in zip(numbers, texts, answers, strict=True):
        for column, text in zip(columns, pair, strict=True):
            if not text.strip():
                raise ValueError(f"{paths[0]}: the {column!r} of row {number} is empty; take out such pairs.")
    return Dataset.from_dict({"text": texts, "prompt": [prompt] * len(texts), "answer": answers}, features=PAIR)


def examples_of(
    rows: Dataset,
    task: ClassificationTask,
    where: str,
    skip_empty: bool = False,
    numbers: Sequence[int] | None = None,
) -> Dataset:
    """The rows of a table as examples of a task.

    Args:
        rows: with the columns that the task names.
        task: which.
        where: what the rows were read from, for messages.
        skip_empty: leave out rows without a text.
        numbers: what the rows are called in messages; 1, 2, ... when not given.

    Raises:
        ValueError: as `read_examples`.
    """
    labelled = task.label_column if task.choices_column is None else task.choices_column
    columns = list(dict.fromkeys([*task.text_columns, task.label_column, labelled]))
    _check_columns(rows, columns, where)
    made = {name: [] for name in EXAMPLE}
    called = iter(range(1, len(rows) + 1) if numbers is None else numbers)
    for batch in rows.select_columns(columns).iter(_ROWS_AT_A_TIME):
        for values in zip(*(batch[name] for name in columns), strict=True):
            number = next(called)
            row = dict(zip(columns, values, strict=True))
            texts = {name: _text(row[name]).strip() for name in task.text_columns}
            if empty := [name for name, text in texts.items() if not text]:
                if skip_empty:
                    continue
                raise ValueError(
                    f"{where}: {empty[0]!r} of row {number} is empty; leave such rows out with `skip_empty=True` "
                    "(`--skip-empty`)."
                )
            answer, choices = _label(row, task, f"{where}: row {number}")
            made["text"].append(task.source.format(**texts))
            made["prompt"].append(task.prompt.format(**texts))
            made["answer"].append(answer)
            made["choices"].append(choices)
    if not made["text"]:
        raise ValueError(f"{where}: all {len(rows):,} rows are empty.")
    return Dataset.from_dict(made, features=EXAMPLE)


def _label(row: dict[str, Any], task: ClassificationTask, where: str) -> tuple[str, list[str]]:
    """The right label of a row, and those it is one of."""
    value = row[task.label_column]
    if task.choices_column is None:
        answer = task.verbalize(value)
        if answer is None:
            known = ", ".join(f"{key!r} ({label})" for key, label in task.labels.items())
            raise ValueError(f"{where} has the label {value!r}; the task {task.name!r} knows {known}.")
        return answer, list(task.labels.values())
    choices = row[task.choices_column]
    if not isinstance(choices, list) or len(choices) < 2 or len(set(map(str, choices))) < len(choices):
        raise ValueError(
            f"{where}: {task.choices_column!r} holds {choices!r}, where a list of two or more different labels is expected."
        )
    choices, answer = [_text(choice) for choice in choices], _text(value)
    if answer not in choices:
        raise ValueError(f"{where} has the label {answer!r}, which is none of its choices {choices}.")
    return answer, choices


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _draw(rows: Dataset, count: int | None, seed: int) -> tuple[Dataset, Sequence[int]]:
    """So many rows, in their order, or all; and their numbers, from 1."""
    if count is None or count >= len(rows):
        return rows, range(1, len(rows) + 1)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])
    return rows.select(drawn), (drawn + 1).tolist()


def _check_columns(rows: Dataset, columns: Iterable[str], where: str):
    if missing := [name for name in columns if name not in rows.column_names]:
        raise ValueError(
            f"{where} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, rows.column_names))}."
        )


def _local_files(template: str, language: str, split: str) -> list[str]:
    try:
        pattern = template.format(language=language, split=split)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"`data_files` is {template!r}; between braces may stand {{language}} and {{split}}."
        ) from error
    paths = sorted(glob.glob(pattern)) or ([pattern] if Path(pattern).is_file() else [])
    if not paths:
        raise FileNotFoundError(f"There is no file {pattern}.")
    return paths


def _read_files(paths: list[str], nested: bool = False, names: list[str] | None = None) -> Dataset:
    """The rows of files of one kind; `names` are the columns of files without a head."""
    kinds = {file_kind(path) for path in paths}
    if len(kinds) > 1 or not kinds <= set(_LOADERS):
        raise ValueError(
            f"{paths[0]} ends in {Path(paths[0]).suffix or 'nothing'!r}; rows are read from files of one kind that ends in "
            f"{', '.join(_LOADERS)}."
        )
    kind = kinds.pop()
    if nested and kind == ".json":
        return Dataset.from_list([row for path in paths for row in _nested_rows(path)])
    loader, options = _LOADERS[kind]
    if names is not None:
        options = options | {"header": None}
    try:
        rows = load_dataset(loader, data_files=paths, split="train", **options)
    except OSError:
        raise
    except Exception as error:
        # The loaders raise errors of many kinds, and the one that says why is inside.
        raise ValueError(f"{paths[0]} cannot be read: {error.__cause__ or error or type(error).__name__}") from error
    if names is None:
        return rows
    if len(rows.column_names) != len(names):
        raise ValueError(
            f"{paths[0]} has {len(rows.column_names)} columns, where {len(names)} are expected: {', '.join(names)}, without a "
            "head. Take the others out, or write a table with named columns."
        )
    return rows.rename_columns(dict(zip(rows.column_names, names, strict=True)))


def _nested_rows(path: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    rows = next(iter(content.values())) if isinstance(content, dict) and len(content) == 1 else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} is not a JSON object with one list of rows.")
    return rows


def _read_hub(task: ClassificationTask, language: str, split: str, token: str | bool | None) -> tuple[Dataset, str]:
    hub = task.hub
    if hub is None:
        raise ValueError(f"The task {task.name!r} is in no dataset on the Hub; name its files with `data_files`.")
    if language not in task.languages:
        raise ValueError(
            f"{hub.repository} has no rows in {language!r}; the task {task.name!r} is there in {', '.join(task.languages)}. "
            "Rows in other languages are read from files: name them with `data_files` (`--data-files`)."
        )
    if split not in hub.splits:
        raise ValueError(f"{hub.repository} has no split {split!r}; there are {', '.join(hub.splits)}.")
    split, where = hub.splits[split], f"{hub.repository} ({language}, {hub.splits[split]})"
    source = {"revision": hub.revision, "token": token}
    files = None if hub.files is None else hub.files.format(language=language, split=split)
    try:
        if files is not None and task.nested:
            # With a loading script beside them `load_dataset` refuses the files.
            return _read_files([hf_hub_download(hub.repository, files, repo_type="dataset", **source)], True), where
        if files is not None:
            return load_dataset(hub.repository, data_files={split: files}, split=split, **source), where
        config = None if hub.config is None else hub.config.format(language=language)
        return load_dataset(hub.repository, config, split=split, **source), where
    except OSError as error:
        raise OSError(
            f"{hub.repository} cannot be read from the Hub ({error}). If there is no network, bring its files and name them "
            "with `data_files` (`--data-files`)."
        ) from error
