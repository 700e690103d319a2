"""From a TALL and a text to a report: questions, translations, approaches, answers, tables."""

import copy
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from rich.console import Console

from tall_hf.data.prepare import load_prepared
from tall_hf.data.translation import translate_corpus, translator_fingerprint
from tall_hf.fingerprints import json_digest
from tall_hf.kinds import TALL, check_kind
from tall_hf.measuring.cost import Cost, CostMeter
from tall_hf.measuring.device import accelerator_or_cpu, choose_dtype
from tall_hf.measuring.statistics import load_metric
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.processing_tall import TALLProcessor

from .approach import PROTOCOLS, Approach, Question
from .approaches.translator_only import TranslatorOnly, check_translator_only
from .build import Parts, build_approaches, is_missing_folder
from .report import write_report
from .run import Results, ask_approaches, check_approaches, evaluating_into
from .store import KeptCost
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
    budget_batch_size: int | None = None,
    budget_group_by_length: bool = False,
    soft_prompt_sentences: int | None = None,
    split: Callable[[str], list[str]] = str.split,
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
            are the other approaches'. All must have the same LR→HR translator; where one reads fewer tokens of a sentence than
            another (the bridge "concat" before an LLM of few positions), no sentence may have more.
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
        budget_steps, budget_batch_size: optimizer steps of approaches that are trained here, and sentences a step; their
            own defaults when not given. Give them what the TALL was given.
        budget_group_by_length: whether these steps have sentences of similar length, which spares padding.
        soft_prompt_sentences: training sentences that "soft_prompt" looks for words for, its own default when not given.
        split: divides a sentence into words, for scripts without spaces, as for `read_questions`. Questions, `ngram`,
            what comes back by translation and the split by length follow it; approaches that write with a tokenizer take
            for a word what stands between spaces. The command line has no such option.
        batch_size, top_k, seed: as for `evaluate_approaches`.
        dtype: "float32", "bfloat16", or "auto": bfloat16 where an accelerator computes in it.
        allow_pickle: accept weights of `llm` and `hr_lr` that are only there pickled.
        token: for private repositories.
        console: for tables and progress; the terminal when not given.

    Returns:
        The answers, and what `results.json` holds.

    Raises:
        ValueError: an unknown approach, one that was asked for and lacks something (the message says what to run), no
            sentences left, a model that is no TALL, a `translator_only` with an LLM, TALLs of different translators,
            or a sentence that one of several TALLs would cut elsewhere.
        ImportError: the extra `eval` is not installed.
        OSError: a part or a file that is not there, or a full disk.
        BlockingIOError: another process evaluates into `output`.
    """
    console, output = console or Console(), Path(output)
    load_metric()  # what is missing is missed now, not after hours of answers
    models = dict(models) if isinstance(models, dict) else {"tall": models}
    for model in models.values():
        check_kind(model, TALL, token=token)
    if translator_only is not None:
        check_kind(translator_only, TALL, token=token)
        check_translator_only(TALLConfig.from_pretrained(translator_only, token=token))
    for option, part in (("llm", llm), ("hr_lr", hr_lr)):
        if part is not None and is_missing_folder(part):
            raise FileNotFoundError(f"`{option}` is {part}, and there is no such folder.")
    training = training_text(dataset) if dataset is not None else None
    parts = Parts(
        models=models,
        llm=llm,
        hr_lr=hr_lr,
        translator_only=translator_only,
        training=training,
        budget_steps=budget_steps,
        budget_batch_size=budget_batch_size,
        budget_group_by_length=budget_group_by_length,
        soft_prompt_sentences=soft_prompt_sentences,
        split=split,
        seed=seed,
        dtype=choose_dtype(dtype),
        device=accelerator_or_cpu(),
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
            split=split,
            training=training,
            exclude_overlap=exclude_overlap,
        )
        if counts[protocol].learned:
            notes.append(
                f"{counts[protocol].learned:,} of the {len(questions[protocol]):,} sentences ({protocol}) stand in the training "
                "text, where approaches have read their last words; `exclude_overlap` leaves such sentences out."
            )
        console.print(counts[protocol].table(f"Questions, protocol {protocol}"))
    everyone = [*chosen, *user_approaches]
    with evaluating_into(output):
        questions, translation_cost = _with_translations(parts, everyone, questions, dataset, output)
        check_approaches(everyone, questions, batch_size=batch_size, top_k=top_k)
        results = ask_approaches(
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
            results,
            output,
            reference=parts.first,
            training=training,
            split=split,
            strip_niqqud=strip_niqqud,
            details=details,
            notes=notes,
            console=console,
        )
    return results, report


def _with_translations(
    parts: Parts,
    approaches: Sequence[Approach],
    questions: dict[str, list[Question]],
    dataset: str | os.PathLike | None,
    output: Path,
) -> tuple[dict[str, list[Question]], Cost | None]:
    """The questions with translations by the TALLs' translator, if an approach reads them, and what those cost.

    What was prepared is checked to be of that translator too. TALLs that read sentences of different lengths share the
    translations where none of the sentences is longer than what the shortest reads.
    """
    wanted = any(approach.reads_translations for approach in approaches)
    if not wanted and dataset is None:
        return questions, None
    talls = dict(parts.models)
    if any(isinstance(approach, TranslatorOnly) for approach in approaches):
        talls["translator_only"] = parts.translator_only
    processors = {name: TALLProcessor.from_pretrained(folder, token=parts.token) for name, folder in talls.items()}
    lengths = {name: processor.max_source_length for name, processor in processors.items()}
    shortest = min((length for length in lengths.values() if length is not None), default=None)
    fingerprints = {}
    for name, folder in reversed(talls.items()):  # the first one stays
        # In the dtype it was saved in: rounded weights are another translator's.
        model, processor = TALL.load(folder, token=parts.token)
        reader = copy.copy(processor)
        reader.max_source_length = shortest
        fingerprints[name] = translator_fingerprint(model, reader)
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
    if len(set(lengths.values())) > 1:
        _check_none_is_cut(processor, texts, lengths, shortest)
    corpus = Dataset(Dataset.from_dict({"truncated": texts}).data, fingerprint=json_digest(texts))
    model.to(device=parts.device, dtype=parts.dtype)
    # What is translated in another dtype is translated anew, at a cost of its own.
    name = json_digest([fingerprints[parts.first], corpus._fingerprint, str(parts.dtype)])
    costs = KeptCost(output / "translation_costs" / f"{name}.json")
    with CostMeter(costs.keep) as meter:
        translated = translate_corpus(model, reader, corpus, output / "translations")
    cost = costs.finish(meter.cost)
    translations = dict(zip(texts, translated["translation"], strict=True))
    with_translations = {
        protocol: [dataclasses.replace(question, translation=translations[question.truncated]) for question in asked]
        for protocol, asked in questions.items()
    }
    return with_translations, cost


def _check_none_is_cut(
    processor: TALLProcessor, texts: list[str], lengths: dict[str, int | None], shortest: int
) -> None:
    """ValueError if a text has more tokens than the TALL that reads the fewest, for another would read a longer part of it."""
    whole = copy.copy(processor)
    whole.max_source_length = None
    cut = sum(len(row) > shortest for row in whole.encode_source(texts)["input_ids"])
    if cut:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(
            f"{cut:,} of the {len(texts):,} sentences have more than {shortest} tokens, and the TALLs read different lengths of "
            f"them (at most: {listed}), while questions are translated once; evaluate these TALLs one by one, or leave out "
            "the longest sentences."
        )
