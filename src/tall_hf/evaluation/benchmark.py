"""From a TALL and a text to a report: questions, translations, approaches, answers, tables."""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from rich.console import Console

from tall_hf.data.prepare import load_prepared
from tall_hf.data.translation import translate_corpus, translator_fingerprint
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor

from .approach import PROTOCOLS, Approach, Question
from .build import Parts, build_approaches, check_tall
from .cost import Cost, CostMeter
from .report import write_report
from .run import Results, evaluate_approaches
from .store import digest, write_json
from .task import read_questions, training_text


def evaluate(
    models: str | os.PathLike | dict[str, str | os.PathLike],
    text: str | os.PathLike | Dataset | IterableDataset | Iterable[str],
    output: str | os.PathLike,
    *,
    dataset: str | os.PathLike | None = None,
    approaches: Sequence[str] | None = None,
    user_approaches: Sequence[Approach] = (),
    protocols: Sequence[str] = PROTOCOLS,
    column: str | None = None,
    group_column: str | None = None,
    max_questions: int | None = None,
    strip_niqqud: bool = False,
    exclude_overlap: int | None = None,
    llm: str | None = None,
    hr_lr: str | None = None,
    translator_only: str | os.PathLike | None = None,
    budget_steps: int | None = None,
    batch_size: int = 32,
    top_k: int = 5,
    seed: int = 0,
    dtype: str = "auto",
    allow_pickle: bool = False,
    token: str | bool | None = None,
    console: Console | None = None,
) -> tuple[Results, dict[str, Any]]:
    """Compare approaches to the missing word on sentences that none of them has learned from.

    Everything is kept in `output`: translations, what approaches learn, answers, then the report. The same call goes on
    where an earlier one stopped.

    Args:
        models: folder or Hub id of a TALL, called "tall", or several by name; the first is the reference, and its parts
            are the other approaches'. All must have the same LR→HR translator.
        text, column, group_column, max_questions, strip_niqqud, exclude_overlap: the sentences to ask about, as for
            `read_questions`.
        output: the folder.
        dataset: what `tall prepare` wrote for this TALL: the text that approaches learn from.
        approaches: names in `APPROACHES`; all that can be built when not given.
        user_approaches: your own, asked after the others.
        protocols: "clean", "paper" or both.
        llm, hr_lr: the language model with its head and the translator back, as Hub ids or folders; the model's own when
            not given.
        translator_only: a TALL that was composed without its LLM and trained on the same text.
        budget_steps: optimizer steps of approaches that are trained here; their own defaults when not given.
        batch_size, top_k, seed: as for `evaluate_approaches`.
        dtype: "float32", "bfloat16", or "auto": bfloat16 where an accelerator computes in it.
        allow_pickle: accept weights of `llm` and `hr_lr` that are only there pickled.
        token: for private repositories.
        console: for tables and progress; the terminal when not given.

    Returns:
        The answers, and what `results.json` holds.

    Raises:
        ValueError: an unknown approach, one that was asked for and lacks something (the message says what to run), no
            sentences left, a model that is no TALL, or TALLs of different translators.
        OSError: a part or a file that is not there.
    """
    console = console or Console()
    models = dict(models) if isinstance(models, dict) else {"tall": models}
    for model in models.values():
        check_tall(model, token)
    training = training_text(dataset) if dataset is not None else None
    parts = Parts(
        models=models,
        llm=llm,
        hr_lr=hr_lr,
        translator_only=translator_only,
        training=training,
        budget_steps=budget_steps,
        seed=seed,
        dtype=choose_dtype(dtype),
        device=_device(),
        allow_pickle=allow_pickle,
        token=token,
    )
    chosen, left_out = build_approaches(parts, approaches, protocols)
    notes = [f"Left out: {name}: {reason}." for name, reason in left_out.items()]
    for note in notes:  # before hours of work, too
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    questions, counts = {}, {}
    source = text if isinstance(text, str | os.PathLike | Dataset | IterableDataset) else list(text)
    for protocol in protocols:
        questions[protocol], counts[protocol] = read_questions(
            source,
            protocol,
            column=column,
            group_column=group_column,
            max_questions=max_questions,
            strip_niqqud=strip_niqqud,
            training=training,
            exclude_overlap=exclude_overlap,
        )
        table = counts[protocol].table()
        table.title = f"Questions, protocol {protocol}"
        console.print(table)
    everyone = [*chosen, *user_approaches]
    reads_translations = any(approach.reads_translations for approach in everyone)
    questions, translation_cost = _with_translations(parts, questions, dataset, Path(output), reads_translations)

    results = evaluate_approaches(
        everyone, questions, output, training, batch_size=batch_size, top_k=top_k, seed=seed, console=console
    )
    if translation_cost:
        readers = ", ".join(approach.name for approach in everyone if approach.reads_translations)
        notes.append(
            f"Translating the sentences took {translation_cost.seconds:,.1f} seconds, once for all who read translations "
            f"({readers}); the table does not count it."
        )
    details = {
        "models": {name: str(model) for name, model in models.items()},
        "text": str(text) if isinstance(text, str | os.PathLike) else None,
        "dataset": None if dataset is None else str(dataset),
        "training_fingerprint": training.fingerprint if training else None,
        "dtype": str(parts.dtype).removeprefix("torch."),
        "device": parts.device.type,
        "counts": {protocol: dataclasses.asdict(count) for protocol, count in counts.items()},
        "left_out": left_out,
        "translation_cost": dataclasses.asdict(translation_cost) if translation_cost else None,
    }
    report = write_report(
        results, output, reference=parts.first, training=training, details=details, notes=notes, console=console
    )
    return results, report


def choose_dtype(name: str) -> torch.dtype:
    """The dtype of "float32", "bfloat16" or "auto": bfloat16 where an accelerator computes in it.

    Raises:
        ValueError: another name.
    """
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported(False) else torch.float32
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"`dtype` must be 'auto', 'float32' or 'bfloat16', got {name!r}.")
    return getattr(torch, name)


def _device() -> torch.device:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def _with_translations(
    parts: Parts, questions: dict[str, list[Question]], dataset, output: Path, wanted: bool
) -> tuple[dict[str, list[Question]], Cost | None]:
    """The questions with translations by the TALLs' translator, and what those cost.

    What was prepared is checked to be of that translator too.
    """
    if not wanted and dataset is None:
        return questions, None
    fingerprints = {}
    for name, folder in reversed(parts.models.items()):  # the first one stays
        # In the dtype it was saved in: rounded weights are another translator's.
        model = TALLForCausalLM.from_pretrained(folder, use_safetensors=True, token=parts.token)
        processor = TALLProcessor.from_pretrained(folder, token=parts.token)
        fingerprints[name] = translator_fingerprint(model, processor)
    if len(set(fingerprints.values())) > 1:
        listed = ", ".join(f"{name} {fingerprint}" for name, fingerprint in fingerprints.items())
        raise ValueError(
            f"The TALLs have different LR→HR translators (fingerprints: {listed}), and questions are translated once; "
            "evaluate these TALLs one by one."
        )
    if dataset is not None:
        load_prepared(dataset, model, processor)
    if not wanted:
        return questions, None
    texts = list(dict.fromkeys(question.truncated for asked in questions.values() for question in asked))
    corpus = Dataset(Dataset.from_dict({"truncated": texts}).data, fingerprint=digest(texts))
    model.to(device=parts.device, dtype=parts.dtype)
    with CostMeter() as meter:
        translated = translate_corpus(model, processor, corpus, output / "translations")
    # A later call finds the translations made, and reports what it took to make them.
    report = output / "translations" / f"cost-{digest([translated._fingerprint])}.json"
    if not report.exists():
        write_json(report, dataclasses.asdict(meter.cost))
    cost = Cost(**json.loads(report.read_text(encoding="utf-8")))
    translations = dict(zip(texts, translated["translation"], strict=True))
    with_translations = {
        protocol: [dataclasses.replace(question, translation=translations[question.truncated]) for question in asked]
        for protocol, asked in questions.items()
    }
    return with_translations, cost
