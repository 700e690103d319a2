"""Every truncated sentence translated once by the frozen LR→HR translator, in shards that outlive an interruption."""

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from rich.console import Console
from transformers import GenerationConfig

from tall_hf.files import full_disk_named, remove_unfinished
from tall_hf.fingerprints import hash_tensors, text_digest, tokenizer_digest
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.progress import progress_bars

from .arrow import arrow_writer, read_arrow
from .ctranslate2_backend import ctranslate2_backend


BACKENDS = ("transformers", "ctranslate2")
_SCHEMA = pa.schema([("truncated", pa.string()), ("translation", pa.string())])
_ROWS_AT_A_TIME = 1000
_ADVICE = (
    "What was translated before is kept there: free some space, then run the same command again, and it goes on where it "
    "stopped."
)


def translate_corpus(
    model: TALLForCausalLM,
    processor: TALLProcessor,
    corpus: Dataset,
    folder: str | Path,
    *,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    shard_size: int = 512,
    backend: str = "transformers",
    compute_type: str = "int8",
    console: Console | None = None,
    **generation_kwargs,
) -> Dataset:
    """Translate a corpus's truncated sentences with the frozen LR→HR translator, each distinct one once.

    Sentences are sorted by length, the longest first, and divided into shards; a shard is written to `folder` aside, then
    renamed. A run that was killed goes on behind its last shard and ends with the very files of an undisturbed one. Under
    `accelerate launch` or `torchrun`, on a folder that all processes see, each process translates its share of the shards.

    Shards lie in a sub-folder named after the translator: its weights, its tokenizer, its generation settings and the
    backend (`translator_fingerprint`). So another translator never meets these translations, and the same one translates
    only what it has not seen: new sentences of a grown corpus. How sentences are batched, the dtype that is computed in, the
    device and the number of processes are not part of it: they move a translation by rounding at most. The result lies
    beside them as one file; it and the shards may be deleted when they are no longer needed.

    Args:
        model: the TALL whose translator it is; only that part works, on the device where it stands.
        processor: its processor.
        corpus: with a column `truncated`, as `build_corpus` makes it.
        folder: for the shards; kept, for the next run.
        batch_size: sentences a batch at most.
        batch_tokens: source tokens a batch at most, padding included.
        shard_size: sentences a file: what an interruption loses at most.
        backend: "transformers", or "ctranslate2" (the extra `ct2`), which is faster and rounds.
        compute_type: of CTranslate2: "int8", "int8_float16" on a GPU, "float32", ...
        console: where progress is shown; standard error when not given.
        generation_kwargs: for the translator's `generate`, such as `num_beams=1`; otherwise its own settings.

    Returns:
        The corpus with a column `translation`, in mapped memory, its fingerprint made of the corpus's and the translator's.

    Raises:
        ValueError: unknown settings, sampling, or a damaged shard.
        ImportError: the backend is not installed.
        OSError: a shard cannot be written, for instance because the disk is full; the shards before it are kept.
    """
    for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens), ("shard_size", shard_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    state = launched_processes()
    fingerprint = translator_fingerprint(model, processor, backend, compute_type, **generation_kwargs)
    store = Path(folder) / fingerprint
    result_fingerprint = text_digest(corpus._fingerprint, fingerprint)
    result = store.with_name(f"{result_fingerprint}.arrow")
    with state.main_process_first():
        if state.is_main_process:
            store.mkdir(parents=True, exist_ok=True)
            remove_unfinished(folder)
        is_done = result.exists()
    if is_done:
        return read_arrow(result, result_fingerprint)

    digests = _digests(corpus)
    known = _digests(_stored(store))
    state.wait_for_everyone()  # nobody writes before everybody has looked
    distinct, first_rows = np.unique(digests, return_index=True)
    is_new = ~np.isin(distinct, known)
    if is_new.any():
        lengths = _source_lengths(processor, corpus, first_rows)
        # The order must not depend on that of the corpus, nor on what is translated already.
        order = np.lexsort((distinct, -lengths))
        shards = (order[start : start + shard_size] for start in range(0, len(order), shard_size))
        shards = [shard[is_new[shard]] for shard in shards]
        shards = [shard for shard in shards if len(shard)][state.process_index :: state.num_processes]
        with (
            translation_backend(model, processor, backend, compute_type, generation_kwargs) as translate,
            progress_bars("sentences", console, disable=not state.is_main_process) as progress,
        ):
            task = progress.add_task("Translating", total=sum(map(len, shards)))
            for shard in shards:
                texts = corpus.select(first_rows[shard])["truncated"][:]
                translations = []
                for batch in _batches(lengths[shard], batch_size, batch_tokens):
                    translations += translate(texts[batch])
                    progress.advance(task, batch.stop - batch.start)
                _write_shard(store, texts, translations)
    state.wait_for_everyone()
    if state.is_main_process:
        _write_result(result, corpus, digests, store)
    state.wait_for_everyone()
    return read_arrow(result, result_fingerprint)


def translator_fingerprint(
    model: TALLForCausalLM,
    processor: TALLProcessor,
    backend: str = "transformers",
    compute_type: str = "int8",
    **generation_kwargs,
) -> str:
    """16 hexadecimal digits that stand for all that decides a translation.

    That is the LR→HR translator's weights as numbers, its tokenizer, languages and length limit, its generation settings
    with `generation_kwargs` applied, and the backend.

    Raises:
        ValueError: an unknown backend, a keyword that is no generation setting, or sampling.
    """
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}.")
    settings = _generation_settings(model, generation_kwargs).to_diff_dict()
    settings.pop("transformers_version", None)
    digest = hashlib.sha256()
    described = {
        "generation": settings,
        "source_lang": processor.source_lang,
        "pivot_lang": processor.pivot_lang,
        "max_source_length": processor.max_source_length,
        "backend": [backend, compute_type if backend == "ctranslate2" else None],
        "tokenizer": tokenizer_digest(processor.source_tokenizer),
    }
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    # Numbers, not dtypes: the model that a training saves in float32 has the translator it was composed with in bfloat16.
    hash_tensors(digest, model.encoder.translator.state_dict(), with_dtype=False)
    return digest.hexdigest()[:16]


def launched_processes() -> PartialState:
    """Which of the processes of `accelerate launch` or `torchrun` this one is; the only one without a launcher."""
    # Without a GPU accelerate counts processes only if told so, and one may wait for another longer than its half hour.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))


def _generation_settings(model, generation_kwargs) -> GenerationConfig:
    settings = copy.deepcopy(model.encoder.translator.generation_config)
    unknown = settings.update(**generation_kwargs)
    if unknown:
        raise ValueError(
            f"{', '.join(map(repr, unknown))} is no setting of `generate` that a translation can be kept by."
        )
    if settings.num_beams is not None and settings.num_beams < 1:
        raise ValueError(f"`num_beams` must be at least 1, got {settings.num_beams}.")
    if settings.do_sample:
        raise ValueError(
            "The translator would sample, and a corpus is translated once and for all: pass `do_sample=False`."
        )
    return settings


def _digests(dataset: Dataset | None) -> np.ndarray:
    """16 bytes that stand for each row's truncated sentence; they, not the sentences, are held in memory."""
    if dataset is None:
        return np.empty(0, dtype="S16")
    parts = [
        np.array([hashlib.blake2b(text.encode(), digest_size=16).digest() for text in batch["truncated"]], dtype="S16")
        for batch in dataset.select_columns("truncated").iter(_ROWS_AT_A_TIME)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype="S16")


def _stored(store: Path) -> Dataset | None:
    """All shards of a store in the order of their names."""
    shards = [read_arrow(path, fingerprint=path.stem) for path in sorted(store.glob("*.arrow"))]
    return concatenate_datasets(shards) if shards else None


def _source_lengths(processor, corpus, rows) -> np.ndarray:
    lengths = []
    for batch in corpus.select(rows).select_columns("truncated").iter(_ROWS_AT_A_TIME):
        lengths += map(len, processor.encode_source(batch["truncated"])["input_ids"])
    return np.array(lengths)


def _batches(lengths: np.ndarray, batch_size: int, batch_tokens: int) -> Iterator[slice]:
    """Consecutive batches of sentences of falling length."""
    start = 0
    while start < len(lengths):
        stop = min(start + max(1, min(batch_size, batch_tokens // max(1, int(lengths[start])))), len(lengths))
        yield slice(start, stop)
        start = stop


def _write_shard(store: Path, texts: list[str], translations: list[str]):
    table = pa.table({"truncated": texts, "translation": translations}, schema=_SCHEMA)
    name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:24]
    with full_disk_named(store, _ADVICE), arrow_writer(store / f"{name}.arrow", _SCHEMA) as writer:
        writer.write_table(table)


def _write_result(path: Path, corpus: Dataset, digests: np.ndarray, store: Path):
    """Write the corpus with a column `translation`, each row's looked up in the store."""
    stored = _stored(store)
    stored_digests = _digests(stored)
    order = np.argsort(stored_digests, kind="stable")
    places = np.searchsorted(stored_digests, digests, sorter=order)
    found = order[np.minimum(places, len(order) - 1)] if len(order) else np.empty(0, dtype=int)
    if len(found) != len(digests) or (stored_digests[found] != digests).any():
        raise RuntimeError(
            f"Shards are missing in {store}: another process failed, or does not see this folder. Run the same command again."
        )
    schema = corpus.features.arrow_schema.remove_metadata().append(pa.field("translation", pa.string()))
    rows = corpus.with_format("arrow")
    with full_disk_named(path.parent, _ADVICE), arrow_writer(path, schema) as writer:
        for start in range(0, len(corpus), _ROWS_AT_A_TIME):
            batch = slice(start, start + _ROWS_AT_A_TIME)
            translations = stored.select(found[batch])["translation"][:]
            table = rows[batch].replace_schema_metadata().append_column("translation", pa.array(translations))
            writer.write_table(table.cast(schema))


@contextlib.contextmanager
def translation_backend(
    model: TALLForCausalLM, processor: TALLProcessor, name: str, compute_type: str, generation_kwargs: dict[str, Any]
) -> Iterator[Callable[[list[str]], list[str]]]:
    """A function from one batch of texts to their translations, by one of `BACKENDS`, as `translate_corpus` calls it."""
    if name == "ctranslate2":
        settings = _generation_settings(model, generation_kwargs)
        yield ctranslate2_backend(model, processor, compute_type, settings, generation_kwargs)
    else:
        yield lambda texts: model.translate(texts, processor, **generation_kwargs)
