"""Models asked to choose a label, language by language: predictions kept as they are made, then a report."""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from rich.console import Console

from tall_hf.components import language_id, needs_language
from tall_hf.data.examples import examples_digest
from tall_hf.files import LOCK_NAME, full_disk_named, is_plain_name, locked, remove_unfinished, write_json
from tall_hf.fingerprints import json_digest, model_fingerprint
from tall_hf.kinds import LAYER_FUSION, check_kind
from tall_hf.measuring.cost import Cost, CostMeter
from tall_hf.measuring.device import accelerator_or_cpu, choose_dtype, free_memory
from tall_hf.measuring.statistics import load_metric
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor
from tall_hf.progress import progress_bars

from .data import read_examples
from .report import write_report
from .tasks import ClassificationTask


PREDICTIONS = "predictions"


@dataclass(frozen=True)
class Predictions:
    """What one model chose in one language.

    Attributes:
        model, language: which.
        answers: the right labels, (questions,).
        labels: the labels that it chose, (questions,).
        path: the file that holds them, with every label's score.
        cost: of scoring.
    """

    model: str
    language: str
    answers: list[str]
    labels: list[str]
    path: Path
    cost: Cost

    @property
    def right(self) -> np.ndarray:
        return np.array([answer == label for answer, label in zip(self.answers, self.labels, strict=True)])


def evaluate_classification(
    models: dict[str, str | os.PathLike],
    task: ClassificationTask,
    output: str | os.PathLike,
    *,
    languages: Sequence[str] | None = None,
    split: str = "test",
    data_files: str | os.PathLike | None = None,
    max_questions: int | None = None,
    skip_empty: bool = False,
    source_langs: dict[str, str] | None = None,
    batch_size: int = 8,
    include_end: bool = True,
    normalize: str | None = None,
    dtype: str = "auto",
    seed: int = 0,
    token: str | bool | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Ask models a task in several languages by scoring its labels, and write a report.

    What a model chose in one language is one file of `output/predictions`, named after all that decides it: the same call
    goes on where it was killed, and other models, questions or settings never meet it.

    Args:
        models: folders or Hub ids by name; the first is the reference that others are compared with.
        task: which.
        output: the folder; new, empty, or one of an earlier call.
        languages: the task's when not given.
        split: "test" or "validation".
        data_files, max_questions, skip_empty: as for `read_examples`.
        source_langs: for each language the code that the encoder's tokenizer knows it by, for encoders that want one.
        batch_size, include_end, normalize: as for `label_log_probabilities`.
        dtype: "float32", "bfloat16", or "auto": bfloat16 where an accelerator computes in it.
        seed: of the draw of questions and of the bootstrap.
        token: for private repositories.
        console: for tables and progress; the terminal when not given.

    Returns:
        What `results.json` holds.

    Raises:
        ValueError: an unknown language, a model that is no LayerFusionForCausalLM, an encoder that wants a language's code
            for which none is given, a damaged file, and what `read_examples` refuses.
        FileExistsError: `output` holds something else.
        BlockingIOError: another process evaluates into `output`.
        ImportError: the extra `eval` is not installed.
        OSError: a part or a file that is not there, or a full disk.
    """
    console, output = console or Console(), _checked_output(Path(output))
    load_metric()  # what is missing is missed now, not after hours of answers
    languages = list(task.languages if languages is None else languages)
    if split not in ("validation", "test"):
        raise ValueError(
            f"`split` must be 'validation' or 'test', got {split!r}: what was trained on is no evaluation."
        )
    if not languages:
        raise ValueError(f"The task {task.name!r} names no languages; say which to ask.")
    if not models:
        raise ValueError("There is no model to evaluate.")
    if wrong := [name for name in models if not is_plain_name(name)]:
        raise ValueError(f"A model's name is also a folder's: letters, digits, '_', '.', '+', '-'; got {wrong[0]!r}.")
    if wrong := [language for language in languages if not is_plain_name(language)]:
        raise ValueError(
            f"A language's code is also part of a file's name: letters, digits, '_', '-'; got {wrong[0]!r}."
        )
    for model in models.values():
        check_kind(model, LAYER_FUSION, token=token)
    asked = {
        language: read_examples(
            task,
            language,
            split,
            data_files=data_files,
            max_examples=max_questions,
            seed=seed,
            skip_empty=skip_empty,
            token=token,
        )
        for language in dict.fromkeys(languages)
    }
    scoring = {"batch_size": batch_size, "include_end": include_end, "normalize": normalize}
    (output / PREDICTIONS).mkdir(parents=True, exist_ok=True)
    predictions = []
    advice = "Free some space, then run the same command again: it goes on where it stopped."
    with locked(output), full_disk_named(output, advice):
        remove_unfinished(output)
        for name, folder in models.items():
            predictions += _ask(name, folder, asked, output, source_langs or {}, scoring, dtype, token, console)
        details = {
            "task": dataclasses.asdict(task),
            "split": split,
            "data_files": None if data_files is None else str(data_files),
            "max_questions": max_questions,
            "models": {name: str(folder) for name, folder in models.items()},
            "scoring": {"include_end": include_end, "normalize": normalize},
            "source_langs": source_langs,
        }
        choices = {language: examples["choices"][:] for language, examples in asked.items()}
        return write_report(task, predictions, choices, output, details=details, seed=seed, console=console)


def _ask(
    name: str,
    folder: str | os.PathLike,
    asked: dict[str, Dataset],
    output: Path,
    source_langs: dict[str, str],
    scoring: dict[str, Any],
    dtype: str,
    token: str | bool | None,
    console: Console,
) -> list[Predictions]:
    """What a model chooses in each language; what is in a file already is read from there."""
    processor = LayerFusionProcessor.from_pretrained(folder, token=token)
    codes = {language: _source_lang(processor, language, source_langs) for language in asked}
    computed_in = choose_dtype(dtype)
    model = LayerFusionForCausalLM.from_pretrained(folder, dtype=computed_in, token=token).eval()
    of_model = {
        "model": model_fingerprint(model, processor.tokenizer, processor.source_tokenizer),
        "max_source_length": processor.max_source_length,
        "repeat_source": processor.repeat_source,
        "dtype": str(computed_in),
        "include_end": scoring["include_end"],
        "normalize": scoring["normalize"],
        "versions": {package: version(package) for package in ("tall-hf", "transformers")},
    }
    model.to(accelerator_or_cpu())
    made = []
    with progress_bars("questions", Console(stderr=True) if console.is_terminal else console) as progress:
        for language, examples in asked.items():
            settings = of_model | {"source_lang": codes[language], "questions": examples_digest(examples)}
            path = output / PREDICTIONS / name / f"{language}-{json_digest(settings)}.json"
            task = progress.add_task(f"{name} ({language})", total=len(examples))
            if not path.exists():
                with CostMeter() as meter:
                    scores = _scores(
                        model, processor, examples, codes[language], scoring, lambda n, t=task: progress.advance(t, n)
                    )
                write_json(path, _predictions_dict(examples, scores, settings, meter.cost))
            made.append(_read_predictions(path, name, language, examples))
            progress.update(task, completed=len(examples))
    del model
    free_memory()
    return made


def _scores(model, processor, examples: Dataset, source_lang: str | None, scoring: dict, advance) -> list[list[float]]:
    """The score of every label of every question, in the order of the questions."""
    texts, prompts, choices = examples["text"][:], examples["prompt"][:], examples["choices"][:]
    # The longest first: texts of about one length make a batch, and what does not fit into the memory shows at once.
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    scores: list[list[float]] = [[] for _ in texts]
    for start in range(0, len(order), scoring["batch_size"]):
        batch = order[start : start + scoring["batch_size"]]
        found = model.label_log_probabilities(
            [texts[i] for i in batch],
            processor,
            [choices[i] for i in batch],
            prompt=[prompts[i] for i in batch],
            source_lang=source_lang,
            **scoring,
        )
        for i, row in zip(batch, found.tolist(), strict=True):
            scores[i] = row[: len(choices[i])]
        advance(len(batch))
    return scores


def _predictions_dict(examples: Dataset, scores: list[list[float]], settings: dict[str, Any], cost: Cost) -> dict:
    questions = [
        {
            "text": row["text"],
            "prompt": row["prompt"],
            "answer": row["answer"],
            "prediction": row["choices"][int(np.argmax(found))],
            "scores": dict(zip(row["choices"], found, strict=True)),
        }
        for row, found in zip(examples, scores, strict=True)
    ]
    return {"settings": settings, "cost": dataclasses.asdict(cost), "questions": questions}


def _read_predictions(path: Path, model: str, language: str, examples: Dataset) -> Predictions:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        labels = [question["prediction"] for question in kept["questions"]]
        cost = Cost(**kept["cost"])
        if len(labels) != len(examples):
            raise ValueError(f"it has {len(labels)} predictions for {len(examples)} questions")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and run the same command again.") from error
    return Predictions(model, language, list(examples["answer"]), labels, path, cost)


def _source_lang(processor: LayerFusionProcessor, language: str, source_langs: dict[str, str]) -> str | None:
    """The code of a language for an encoder that wants one; in another language's name it would read something else."""
    if not needs_language(processor.source_tokenizer):
        return None
    if language not in source_langs:
        raise ValueError(
            f"The encoder's tokenizer ({type(processor.source_tokenizer).__name__}) wants the code of the language it reads, "
            f"and none is given for {language!r}: pass `source_langs` (`--source-lang {language}=CODE`), such as "
            "sw=swh_Latn for NLLB."
        )
    language_id(processor.source_tokenizer, source_langs[language])  # it would pass over one that it does not know
    return source_langs[language]


def _checked_output(output: Path) -> Path:
    if output.exists():
        entries = {path.name for path in output.iterdir()} if output.is_dir() else {"a file"}
        if not (entries <= {LOCK_NAME} or PREDICTIONS in entries):
            raise FileExistsError(f"{output} is no folder of an evaluation of labels; name a new or an empty folder.")
    return output
