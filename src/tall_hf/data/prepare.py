"""A corpus made ready for training: cleaned, translated, tokenised, in one folder that a rerun can trust."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, Features, IterableDataset, List, Value, load_from_disk
from rich.console import Console

from tall_hf.files import full_disk_named, locked
from tall_hf.fingerprints import json_digest, text_digest, tokenizer_digest
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor

from .corpus import CorpusSettings, build_corpus, load_corpus
from .folder import (
    check_prepared_output,
    load_splits,
    put_in_place,
    read_report,
    required_report,
    save_split,
    tokenise,
)
from .translation import launched_processes, translate_corpus, translator_fingerprint


REPORT = "prepare.json"
_SHARDS = "shards"
_STAGING = ".preparing"
# The command, and what is in a folder of its own.
OUTPUT = ("tall prepare", REPORT, _SHARDS, _STAGING)
_RESULTS = ("train", "validation", "translations")
_ROW = Features(
    {name: List(Value("int32")) for name in ("input_ids", "llm_input_ids", "labels")}
    | {"continuation_length": Value("int32")}
)


def prepare(
    model: TALLForCausalLM,
    processor: TALLProcessor,
    source: str | os.PathLike | Dataset | IterableDataset | Iterable[str],
    output: str | os.PathLike,
    *,
    column: str | None = None,
    settings: CorpusSettings | None = None,
    console: Console | None = None,
    backend: str = "transformers",
    compute_type: str = "int8",
    batch_size: int = 64,
    batch_tokens: int = 4096,
    shard_size: int = 512,
    **generation_kwargs,
) -> DatasetDict:
    """Make a folder of training rows from text, and go on where an earlier call was interrupted.

    The folder holds `train/` and `validation/` (`input_ids`, `llm_input_ids` and `labels`, as the processor makes them of
    the truncated sentence, its translation and the whole sentence up to its last word; `continuation_length`, how many of
    the labels stand behind the truncated sentence), `translations/` (the same
    sentences as text), `shards/` (what `translate_corpus` keeps, for reruns) and `prepare.json` (counts, settings,
    fingerprints). `prepare.json` is put there last: a folder that has it is whole. When it is what these arguments would
    make, nothing is done.

    Under `accelerate launch` or `torchrun` the processes share the translation, on a folder that all of them see.

    Args:
        model: the TALL to train; its translator reads the corpus, on the device where it stands.
        processor: its processor.
        source, column: the text, as for `tall_hf.data.texts.read_texts`.
        output: the folder; new, empty, or one of an earlier call.
        settings: which sentences to take.
        console: where counts and progress are shown; the terminal when not given.
        backend, compute_type, batch_size, batch_tokens, shard_size, generation_kwargs: as for `translate_corpus`.

    Returns:
        The splits `train` and, with a `validation_share`, `validation`.

    Raises:
        FileExistsError: `output` holds something else.
        BlockingIOError: another process is preparing this folder.
        ValueError, OSError: what the corpus or its translation cannot be made of, or written to.
    """
    settings = settings or CorpusSettings()
    console = console or Console()
    output = check_prepared_output(output, *OUTPUT)
    translator = translator_fingerprint(model, processor, backend, compute_type, **generation_kwargs)
    tokenizers = _tokenizers_fingerprint(processor)
    state = launched_processes()
    output.mkdir(parents=True, exist_ok=True)
    staging = output / _STAGING
    advice = "Free some space, then run the same command again: it keeps the translations that are made."
    with (
        locked(output) if state.is_main_process else contextlib.nullcontext(),
        full_disk_named(output, advice),
    ):
        if state.is_main_process:
            shutil.rmtree(staging, ignore_errors=True)  # of a call that was killed
            staging.mkdir()
        try:
            if state.is_main_process:
                _, counts = build_corpus(source, staging / "corpus.arrow", column, settings)
                console.print(counts.table(settings))
            state.wait_for_everyone()
            corpus = load_corpus(staging / "corpus.arrow")
            fingerprints = {"corpus": corpus._fingerprint, "translator": translator, "tokenizers": tokenizers}
            report = read_report(output, REPORT)
            if report is not None and report["fingerprints"] == fingerprints:
                if state.is_main_process:
                    console.print(
                        f"{output} is prepared already: same text, same translator, same settings.", soft_wrap=True
                    )
            else:
                translated = translate_corpus(
                    model,
                    processor,
                    corpus,
                    output / _SHARDS,
                    batch_size=batch_size,
                    batch_tokens=batch_tokens,
                    shard_size=shard_size,
                    backend=backend,
                    compute_type=compute_type,
                    console=console,
                    **generation_kwargs,
                )
                if state.is_main_process:
                    _save(translated, processor, staging, tokenizers)
                    translation = {
                        "translator": (model.config.components or {}).get("lr_hr"),  # for people: which one it was
                        "backend": backend,
                        "compute_type": compute_type,
                        "generation": generation_kwargs,
                    }
                    report = _report(counts, settings, translation, fingerprints)
                    (staging / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
                    _put_in_place(staging, output)
            state.wait_for_everyone()
        finally:
            if state.is_main_process:
                shutil.rmtree(staging, ignore_errors=True)
    return load_splits(output)


def load_prepared(folder: str | os.PathLike, model: TALLForCausalLM, processor: TALLProcessor) -> DatasetDict:
    """Open what `prepare` made, for the model it was made for.

    Returns:
        The splits `train` and, unless none was asked for, `validation`, in mapped memory.

    Raises:
        FileNotFoundError: the folder was not prepared, or not to its end.
        ValueError: another translator made its translations, or its rows are another processor's.
    """
    folder = Path(folder)
    report = read_prepare_report(folder)
    translation = report["translation"]
    found = translator_fingerprint(
        model, processor, translation["backend"], translation["compute_type"], **translation["generation"]
    )
    made_by = report["fingerprints"]
    if found != made_by["translator"]:
        raise ValueError(
            f"The translations in {folder} were made by another translator (fingerprint {made_by['translator']}) than this "
            f"model's ({found}): its weights, tokenizer or generation settings differ. Run `tall prepare` with this "
            "model, into this folder or another one."
        )
    found = _tokenizers_fingerprint(processor)
    if found != made_by["tokenizers"]:
        raise ValueError(
            f"The rows in {folder} were made by another processor (fingerprint {made_by['tokenizers']}) than this one "
            f"({found}): its tokenizers or length limits differ. Run `tall prepare` with this model; it keeps the "
            "translations."
        )
    return load_splits(folder)


def load_translations(folder: str | os.PathLike) -> DatasetDict:
    """The text that `prepare` made its rows of, whatever the model.

    Returns:
        The splits `train` and, unless none was asked for, `validation`, of `sentence`, `truncated`, `missing_word` and
        `translation`, in mapped memory.

    Raises:
        FileNotFoundError: the folder was not prepared, or not to its end.
    """
    read_prepare_report(Path(folder))
    return load_from_disk(str(Path(folder, "translations")))


def prepared_truncation(folder: str | os.PathLike) -> str:
    """What was taken away of the training sentences in a folder that `prepare` made, as `CorpusSettings.truncation`.

    Raises:
        FileNotFoundError: the folder was not prepared, or not to its end.
    """
    return read_prepare_report(Path(folder))["corpus"].get("truncation", "last_word")


def _tokenizers_fingerprint(processor: TALLProcessor) -> str:
    """16 hexadecimal digits for what decides a row beside its texts."""
    parts = [tokenizer_digest(processor.source_tokenizer), tokenizer_digest(processor.llm_tokenizer)]
    parts += [tokenizer_digest(processor.tokenizer), processor.source_lang, processor.pivot_lang]
    parts += [processor.max_source_length, processor.max_translation_length, *_ROW]
    return json_digest(parts)


def _save(translated: Dataset, processor: TALLProcessor, staging: Path, tokenizers: str):
    is_validation = np.array(translated["is_validation"][:], dtype=bool)
    texts = translated.remove_columns("is_validation")
    splits = DatasetDict()
    for name, chosen in (("train", ~is_validation), ("validation", is_validation)):
        if not chosen.any():
            continue
        splits[name] = texts.select(
            np.flatnonzero(chosen), new_fingerprint=text_digest(translated._fingerprint, name, "texts")
        )
        rows = tokenise(splits[name], lambda batch: _rows(processor, batch), _ROW, staging / name)
        save_split(rows, text_digest(translated._fingerprint, name, tokenizers), staging / name)
    splits.save_to_disk(staging / "translations")


def _rows(processor: TALLProcessor, batch: dict[str, list[str]]) -> dict[str, list]:
    rows = processor(text=batch["truncated"], translations=batch["translation"], text_target=batch["sentence"]).data
    # A word at the truncated sentence's end may be cut into other pieces where the sentence goes on without a space.
    prefixes = processor.encode_target(batch["truncated"])
    common = [
        sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prefix, whole, strict=False)))
        for prefix, whole in zip(prefixes, rows["labels"], strict=True)
    ]
    lengths = [len(whole) - known for whole, known in zip(rows["labels"], common, strict=True)]
    return {**rows, "continuation_length": lengths}


def _report(counts, settings, translation, fingerprints) -> dict:
    from tall_hf import __version__  # the package imports this module

    return {
        "tall_hf": __version__,
        "counts": dataclasses.asdict(counts),
        "corpus": settings.to_dict(),
        "translation": translation,
        "fingerprints": fingerprints,
    }


def _put_in_place(staging: Path, output: Path):
    for collected in (output / _SHARDS).glob("*.arrow"):  # `translations` holds the same
        collected.unlink()
    put_in_place(staging, output, _RESULTS, REPORT)


def read_prepare_report(folder: Path) -> dict:
    """How a folder was prepared; FileNotFoundError where it was not, or not to its end."""
    return required_report(folder, REPORT, "tall prepare")
