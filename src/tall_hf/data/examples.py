"""Examples made ready for training: the rows that LayerFusionCollator reads, in a folder that knows what it was made for."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value
from rich.console import Console

from tall_hf.components import language_id, needs_language
from tall_hf.files import full_disk_named, locked
from tall_hf.fingerprints import json_digest, text_digest, tokenizer_digest
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor

from .corpus import in_validation
from .folder import (
    ROWS_AT_A_TIME,
    check_prepared_output,
    load_splits,
    put_in_place,
    read_report,
    required_report,
    save_split,
    tokenise,
)


REPORT = "fusion_rows.json"
_STAGING = ".preparing"
# The command, and what is in a folder of its own.
OUTPUT = ("tall fusion prepare", REPORT, _STAGING)
_SPLITS = ("train", "validation")
_ROW = Features(
    {name: List(Value("int32")) for name in ("source_input_ids", "input_ids", "mm_token_type_ids", "labels")}
)


def prepare_examples(
    processor: LayerFusionProcessor,
    examples: Dataset,
    output: str | os.PathLike,
    *,
    validation_share: float = 0.02,
    source_lang: str | None = None,
    details: dict[str, Any] | None = None,
    console: Console | None = None,
) -> DatasetDict:
    """Make a folder of training rows from examples.

    The folder holds `train/` and, with a `validation_share`, `validation/`, of the rows that
    `processor(text=..., prompt=..., text_target=...)` makes, and `fusion_rows.json` (counts, what they were made of, and
    fingerprints), which is put there last: a folder that has it is whole. When it is what these arguments would make, nothing
    is done.

    Args:
        processor: of the LayerFusionForCausalLM to train.
        examples: rows of `text`, `prompt` and `answer`, as `read_training_examples` and `read_pairs` give them.
        output: the folder; new, empty, or one of an earlier call.
        validation_share: share of the examples that go to validation, chosen by their texts' hash, so that examples of one
            text stay together; from 0 (none) to below 1.
        source_lang: code of the texts' language, instead of the processor's own.
        details: JSON values for the report, such as which task and how many examples were asked for.
        console: where counts are shown; the terminal when not given.

    Returns:
        The splits `train` and, with a `validation_share`, `validation`, in mapped memory.

    Raises:
        FileExistsError: `output` holds something else.
        BlockingIOError: another process is preparing this folder.
        ValueError: a share that is out of bounds, no example for one of the splits, or an encoder that wants a language's
            code and has none, or one that it does not know.
        OSError: the disk is full.
    """
    if not 0 <= validation_share < 1:
        raise ValueError(f"`validation_share` must be at least 0 and below 1, got {validation_share}.")
    if needs_language(processor.source_tokenizer):
        language = processor.source_lang if source_lang is None else source_lang
        if language is None:
            raise ValueError(
                f"The encoder's tokenizer ({type(processor.source_tokenizer).__name__}) wants the code of the language it "
                "reads: pass `source_lang` (`--source-lang`), such as eng_Latn for NLLB."
            )
        language_id(processor.source_tokenizer, language)
    console, output = console or Console(), check_prepared_output(output, *OUTPUT)
    fingerprints = {
        "examples": examples_digest(examples.select_columns(["text", "prompt", "answer"])),
        "processor": _processor_fingerprint(processor, source_lang),
        "validation_share": validation_share,
    }
    output.mkdir(parents=True, exist_ok=True)
    staging = output / _STAGING
    with locked(output), full_disk_named(output):
        shutil.rmtree(staging, ignore_errors=True)  # of a call that was killed
        report = read_report(output, REPORT)
        if report is not None and report["fingerprints"] == fingerprints:
            console.print(f"{output} is prepared already: same examples, same processor.", soft_wrap=True)
            return load_splits(output)
        staging.mkdir()
        try:
            counts = _save(processor, examples, staging, validation_share, source_lang)
            report = {**(details or {}), "source_lang": source_lang, "counts": counts, "fingerprints": fingerprints}
            (staging / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
            put_in_place(staging, output, _SPLITS, REPORT)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    console.print(", ".join(f"{count:,} {name} rows" for name, count in counts.items()), highlight=False)
    return load_splits(output)


def load_prepared_examples(folder: str | os.PathLike, processor: LayerFusionProcessor) -> DatasetDict:
    """Open what `prepare_examples` made, for the processor it was made for.

    Args:
        folder: what was prepared.
        processor: of the model to train.

    Returns:
        The splits `train` and, unless none was asked for, `validation`, in mapped memory.

    Raises:
        FileNotFoundError: the folder was not prepared, or not to its end.
        ValueError: its rows are another processor's, or of another kind.
    """
    folder = Path(folder)
    report = required_report(folder, REPORT, "tall fusion prepare")
    made_by = report["fingerprints"]["processor"]
    found = _processor_fingerprint(processor, report["source_lang"])
    if found != made_by:
        raise ValueError(
            f"The rows in {folder} were made by another processor (fingerprint {made_by}) than this one ({found}): its "
            "tokenizers, its longest source, its language or `repeat_source` differ. Run `tall fusion prepare` with this model."
        )
    splits = load_splits(folder)
    for name, rows in splits.items():
        if set(rows.column_names) != set(_ROW):
            raise ValueError(
                f"The {name} rows in {folder} have the columns {', '.join(rows.column_names)}, so another command has written "
                "there. Run `tall fusion prepare` into a folder of its own."
            )
    return splits


def examples_digest(examples: Dataset) -> str:
    """16 hexadecimal digits that stand for examples, in their order."""
    digest = hashlib.sha256()
    for batch in examples.iter(ROWS_AT_A_TIME):
        digest.update(json.dumps(batch, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _processor_fingerprint(processor: LayerFusionProcessor, source_lang: str | None) -> str:
    """16 hexadecimal digits for what decides a row beside its example."""
    source_lang = processor.source_lang if source_lang is None else source_lang
    with processor.reading(source_lang):  # the tokenizer is saved with the language that it reads
        parts = [tokenizer_digest(processor.tokenizer), tokenizer_digest(processor.source_tokenizer)]
    parts += [source_lang, processor.max_source_length, processor.repeat_source, *_ROW]
    return json_digest(parts)


def _save(processor, examples: Dataset, staging: Path, share: float, source_lang: str | None) -> dict[str, int]:
    """Write the splits; how many rows each has."""
    options = {} if source_lang is None else {"source_lang": source_lang}
    is_validation = np.array([in_validation(text, share) for text in examples["text"]], dtype=bool)
    counts = {}
    for name, chosen in (("train", ~is_validation), ("validation", is_validation)):
        if not chosen.any():
            if name == "train" or share > 0:
                raise ValueError(
                    f"Of {len(examples):,} examples none falls to {name} with validation_share={share}; pass another share "
                    "or more examples."
                )
            continue
        rows = tokenise(
            examples.select(np.flatnonzero(chosen)),
            lambda batch: _rows(processor, batch, options),
            _ROW,
            staging / name,
        )
        digest = text_digest(name, examples_digest(rows))
        save_split(rows, digest, staging / name)
        counts[name] = len(rows)
    return counts


def _rows(processor: LayerFusionProcessor, batch: dict[str, list[str]], options: dict) -> dict[str, list]:
    rows = processor(text=batch["text"], prompt=batch["prompt"], text_target=batch["answer"], **options)
    return {name: rows[name] for name in _ROW}
