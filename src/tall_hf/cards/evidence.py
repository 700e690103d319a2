"""What a training, a preparation and an evaluation left behind, read for a card and checked to be of one and the same model."""

import csv
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tall_hf.data import LastTokenCollator
from tall_hf.data.prepare import load_prepared, read_prepare_report
from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.report import RESULTS_NAME
from tall_hf.evaluation.run import kept_answers
from tall_hf.evaluation.scoring import score
from tall_hf.files import read_json
from tall_hf.fingerprints import model_fingerprint
from tall_hf.kinds import TALL
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.saving import MODEL_FOLDER
from tall_hf.training.adapter_run import METRICS_NAME
from tall_hf.training.checkpoints import SETTINGS_NAME, STATE_NAME, dataset_fingerprint, last_checkpoint


# What results.json may differ by from the same figure counted again.
_ROUNDING = 1e-9
_OF_A_REPORT = {"counts", "dtype", "models", "protocols", "seed", "text", "versions"}


@dataclass(frozen=True)
class Training:
    """What `tall train` or `tall fusion train` wrote beside its model.

    Attributes:
        settings: of the training, as its checkpoints keep them; empty if they are gone.
        state: transformers' TrainerState.
        metrics: on the validation sentences, at the end.
    """

    settings: dict[str, Any]
    state: dict[str, Any]
    metrics: dict[str, float]

    @property
    def seconds(self) -> float | None:
        """How long the last call trained."""
        runtimes = [entry["train_runtime"] for entry in self.state["log_history"] if "train_runtime" in entry]
        return runtimes[-1] if runtimes else None


@dataclass(frozen=True)
class Evaluation:
    """What `tall evaluate` found about a model.

    Attributes:
        approach: under which name the model was asked.
        text: name of the file with the sentences, without its folder; None for sentences handed in from Python.
        report: all of results.json.
        protocols: those under which the model answered, each as in results.json.
        sentences: rows of the model's CSV under the first of these protocols, as dicts.
    """

    approach: str
    text: str | None
    report: dict[str, Any]
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    sentences: list[dict[str, str]] = field(default_factory=list)


def read_training(model: Path) -> Training | None:
    """What the training beside a saved model left; None if it was not saved by `tall train` or `tall fusion train`.

    Raises:
        ValueError: `metrics.json` has figures that the training never logged.
    """
    run = model.parent
    if model.name != MODEL_FOLDER or not (run / STATE_NAME).is_file():
        return None
    state = read_json(run / STATE_NAME)
    metrics = read_json(run / METRICS_NAME) if (run / METRICS_NAME).is_file() else {}
    figures = {name: value for name, value in metrics.items() if name.startswith("eval_")}
    if figures and not any(figures.items() <= entry.items() for entry in state["log_history"]):
        raise ValueError(
            f"{run / METRICS_NAME} has figures that the training did not log in {STATE_NAME}. A card shows measured figures "
            "only: put the original back, or delete it."
        )
    checkpoint = last_checkpoint(run)
    places = [run, *([Path(checkpoint)] if checkpoint else [])]
    settings = next((place / SETTINGS_NAME for place in places if (place / SETTINGS_NAME).is_file()), None)
    return Training(read_json(settings) if settings else {}, state, metrics)


def read_preparation(
    folder: str | os.PathLike, model: TALLForCausalLM, processor: TALLProcessor, training: Training | None
) -> dict[str, Any]:
    """`prepare.json` of a corpus, if it is the one that the model was trained on.

    Raises:
        FileNotFoundError: the folder was not prepared.
        ValueError: it is another translator's, another processor's, or not what the training read, as far as that is known.
    """
    rows = load_prepared(folder, model, processor)["train"]
    learned = training.settings.get("train_dataset") if training else None
    if learned is None:
        raise ValueError(
            f"Nothing beside the model says that it was trained on {folder}: name the `output_dir` of its training, which holds "
            f"{SETTINGS_NAME}, or leave the dataset out."
        )
    if learned != dataset_fingerprint(rows, LastTokenCollator.row_columns):
        raise ValueError(
            f"The model was not trained on {folder}: the rows that the training read have another fingerprint "
            f"({learned}). Name the `dataset` that it was trained on."
        )
    return read_prepare_report(Path(folder))


def read_evaluation(folder: str | os.PathLike, model: Path) -> Evaluation:
    """What `tall evaluate` found about this very model, with its figures counted again from the answers.

    Args:
        folder: the `output` of `tall evaluate`.
        model: the folder of the saved TALL; it may have moved since, its weights and tokenizers are what is compared.

    Raises:
        FileNotFoundError: the folder has no results, or not the sentences and answers they were counted from.
        ImportError: the extra `eval` is not installed, by which they are counted again.
        ValueError: the results are about another model, or its answers give other figures.
    """
    folder = Path(folder)
    if not (folder / RESULTS_NAME).is_file():
        raise FileNotFoundError(f"{folder} has no {RESULTS_NAME}; name the `--output` folder of `tall evaluate`.")
    report = read_json(folder / RESULTS_NAME)
    if missing := sorted(_OF_A_REPORT - report.keys()):
        raise ValueError(
            f"{folder / RESULTS_NAME} does not say {', '.join(missing)}, so another version of `tall evaluate` wrote it: run the "
            "same `tall evaluate` again."
        )
    found = _fingerprint(model, getattr(torch, report["dtype"]))
    asked = {
        (name, protocol): results["approaches"][name]
        for name in report["models"]
        for protocol, results in report["protocols"].items()
        if name in results["approaches"]
    }
    ours = {key: entry for key, entry in asked.items() if entry["settings"].get("model") == found}
    if not ours:
        others = sorted({str(entry["settings"].get("model")) for entry in asked.values()})
        raise ValueError(
            f"{folder / RESULTS_NAME} is not about {model}: that model's fingerprint in {report['dtype']} is {found}, and "
            f"evaluated were {', '.join(others) or 'none'}. A card shows what this very model was measured to do: run "
            "`tall evaluate` on it, or leave the evaluation out."
        )
    approach = next(iter(ours))[0]
    protocols = {}
    for protocol, results in report["protocols"].items():
        if (approach, protocol) in ours and "error" not in results["approaches"][approach]:
            protocols[protocol] = results
            for name, entry in results["approaches"].items():
                if "error" not in entry:
                    _check_figures(folder, report, protocol, name)
    if not protocols:
        raise ValueError(f"{folder / RESULTS_NAME} has no figures of {model}, whose evaluation failed; run it again.")
    text = Path(report["text"]).name if report["text"] else None
    sentences = _read_sentences(folder, next(iter(protocols)), approach)
    return Evaluation(approach, text, report, protocols, sentences)


def _fingerprint(folder: Path, dtype: torch.dtype) -> str:
    """What an evaluation in this dtype records of the model, whatever folder it lies in."""
    model, processor = TALL.load(folder, dtype=dtype)
    return model_fingerprint(model, processor.tokenizer, processor.source_tokenizer, processor.llm_tokenizer)


def _check_figures(folder: Path, report: dict[str, Any], protocol: str, approach: str):
    """ValueError unless the answers that the evaluation kept give the figures of results.json, intervals included."""
    claimed = report["protocols"][protocol]["approaches"][approach]["metrics"]
    questions = [
        Question(row["sentence"].removesuffix(f" {row['missing_word']}"), row["missing_word"])
        for row in _read_sentences(folder, protocol, approach)
    ]
    wrong = None
    for answers in kept_answers(folder, protocol, approach, questions):
        counted = score(answers, questions, protocol, seed=report["seed"])
        names = [name for name in claimed | counted if not _are_equal(claimed.get(name), counted.get(name))]
        if not names:
            return
        wrong = wrong or (names[0], counted.get(names[0]))
    if wrong is None:
        raise FileNotFoundError(
            f"{folder} does not hold the answers of {approach} to the {len(questions):,} questions of the protocol {protocol!r}, "
            "so its figures cannot be counted again; run the same `tall evaluate` again."
        )
    name, value = wrong
    raise ValueError(
        f"{folder / RESULTS_NAME} says that {approach} has {name} {claimed.get(name)} under the protocol {protocol!r}; its "
        f"answers give {value}. A card shows measured figures only: run the same `tall evaluate` again."
    )


def _are_equal(claimed, counted) -> bool:
    """Whether two figures, or the bounds of two intervals, are the same; JSON has infinity as text."""
    one, other = (
        [] if value is None else [float(part) for part in (value if isinstance(value, list | tuple) else [value])]
        for value in (claimed, counted)
    )
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=_ROUNDING) for a, b in zip(one, other, strict=True)
    )


def _read_sentences(folder: Path, protocol: str, approach: str) -> list[dict[str, str]]:
    path = folder / "sentences" / protocol / f"{approach}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, so the figures of {approach} cannot be counted again; run the same `tall evaluate` again."
        )
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
