"""The model card of a LayerFusionForCausalLM: its data and its page, both from the run that made it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.utils import logging

from tall_hf import hub_cards
from tall_hf.classification.report import RESULTS_NAME
from tall_hf.classification.scores import label_scores
from tall_hf.files import read_json
from tall_hf.fingerprints import model_fingerprint
from tall_hf.kinds import LAYER_FUSION
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM
from tall_hf.saving import model_folder

from .evidence import read_training
from .language import check_language
from .licenses import join_licenses
from .markup import code, code_string, escape, interval, percent, table
from .page import license_link, licenses_by_role, origin, parts_table, training_view
from .parts import check_full_name, citations, read_parts


logger = logging.get_logger(__name__)

TEMPLATE = Path(hub_cards.__file__).parent / "layer_fusion_card.md.j2"


def layer_fusion_card(
    folder: str | os.PathLike,
    *,
    repo_id: str,
    languages: Sequence[str] = (),
    license: str | None = None,
    evaluation: str | os.PathLike | None = None,
    part_licenses: Mapping[str, str] | None = None,
    trainable_only: bool = False,
) -> ModelCard:
    """Write the card of a trained LayerFusionForCausalLM. No network is used.

    Args:
        folder: the `output_dir` of `tall fusion train`, its `model`, or any saved one, of which no training is told.
        repo_id: where it will be published, as "org/name".
        languages: ISO 639 codes of the languages it reads; those of the evaluation when not given.
        license: identifier of the Hub's; joined from the parts' licences when not given.
        evaluation: the `output` of a `tall fusion evaluate` of this model.
        part_licenses: licences by role, as `look_up_licenses` finds them.
        trainable_only: the light form is published: how it is loaded differs.

    Raises:
        OSError: a folder, or a file in it, is not there.
        ValueError: `repo_id` names no owner, a code is no language's, a licence is no identifier, or the evaluation is not of
            this model.
    """
    check_full_name(repo_id)
    folder = model_folder(folder, LAYER_FUSION)
    model, _ = LAYER_FUSION.load(folder)
    parts = read_parts(model.config)
    licenses = licenses_by_role(parts, part_licenses)
    joined = join_licenses(licenses, license)
    for warning in joined.warnings:
        logger.warning(warning)
    measured = read_label_evaluation(evaluation, folder) if evaluation is not None else None
    asked = [check_language(one) for one in languages or (measured["results"]["languages"] if measured else ())]
    name = repo_id.split("/")[-1]
    data = ModelCardData(
        language=asked or None,
        license=joined.identifier,
        **license_link(joined, repo_id),
        library_name="transformers",
        tags=["layer_fusion", "custom_code", "low-resource-language", "multilingual", "arxiv:2508.09091"],
        base_model=list(dict.fromkeys(part.repo_id for part in parts.values() if part.repo_id)) or None,
        metrics=["accuracy", "f1"] if measured else None,
        eval_results=_eval_results(measured),
        model_name=name if measured else None,
    )
    _, total, trained = model.parameter_table()[-1]
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=escape(name),
        repo_id=repo_id,
        trainable_only=trainable_only,
        llm=origin(parts["llm"]),
        encoder=origin(parts["encoder"]),
        source_fusion=model.config.source_fusion,
        is_embedded=all(part.is_embedded for part in parts.values()),
        usage=_usage(measured),
        shares={"total": f"{total:,}", "trained": f"{trained:,}", "share": percent(trained / total)},
        evaluation=_evaluation_view(measured),
        parts_table=parts_table(parts, licenses),
        parameters_table=_parameters_table(model),
        training=training_view(read_training(folder), model.config, "answer_accuracy"),
        license=joined,
        citations=citations(parts),
    )


def read_label_evaluation(folder: str | os.PathLike, model: Path) -> dict[str, Any]:
    """What `tall fusion evaluate` found about this very model, with its figures counted again from its answers.

    Args:
        folder: the `output` of `tall fusion evaluate`.
        model: the folder of the saved model; it may have moved since, its weights and tokenizers are what is compared.

    Returns:
        `results`, all of results.json, and `name`, what the model is called there.

    Raises:
        FileNotFoundError: the folder has no results, or not the answers they were counted from.
        ValueError: the results are about another model, or its answers give other figures.
    """
    folder = Path(folder)
    if not (folder / RESULTS_NAME).is_file():
        raise FileNotFoundError(
            f"{folder} has no {RESULTS_NAME}; name the `--output` folder of `tall fusion evaluate`."
        )
    results = read_json(folder / RESULTS_NAME)
    fingerprints = {}
    for name in results["models"]:
        answers = [_answers(folder, entry["models"][name]) for entry in results["languages"].values()]
        asked = {(one["settings"]["model"], one["settings"]["dtype"]) for one in answers}
        for _, dtype in asked:
            if dtype not in fingerprints:
                fingerprints[dtype] = _fingerprint(model, getattr(torch, dtype.removeprefix("torch.")))
        if asked and all(fingerprints[dtype] == found for found, dtype in asked):
            for language, one in zip(results["languages"], answers, strict=True):
                claimed = results["languages"][language]["models"][name]
                _check_figures(folder, language, claimed, one, results["seed"])
            return {"results": results, "name": name, "dtype": answers[0]["settings"]["dtype"].removeprefix("torch.")}
    raise ValueError(
        f"{folder / RESULTS_NAME} is not about {model}, whose weights are others than those that were evaluated. A card "
        "shows what this very model was measured to do: run `tall fusion evaluate` on it, or leave the evaluation out."
    )


def _answers(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    path = folder / entry["predictions"]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, so its figures cannot be counted again; evaluate again.")
    return read_json(path)


def _fingerprint(folder: Path, dtype: torch.dtype) -> str:
    model, processor = LAYER_FUSION.load(folder, dtype=dtype)
    return model_fingerprint(model, processor.tokenizer, processor.source_tokenizer)


def _check_figures(folder: Path, language: str, claimed: dict[str, Any], answers: dict[str, Any], seed: int):
    """ValueError unless the answers that the evaluation kept give its figures, intervals included."""
    questions = answers["questions"]
    columns = ([question[name] for question in questions] for name in ("answer", "prediction"))
    for name, counted in label_scores(*columns, seed).items():
        if not np.allclose(counted, claimed[name], rtol=0, atol=1e-9):
            raise ValueError(
                f"{folder / RESULTS_NAME} says {name} {claimed[name]} for {language!r}; its answers give {counted}. A card "
                "shows measured figures only: run the same `tall fusion evaluate` again."
            )


def _eval_results(measured: dict[str, Any] | None) -> list[EvalResult] | None:
    """The model-index: accuracy and macro-F1 in each language, with intervals among the metrics' arguments."""
    if measured is None:
        return None
    results, found = measured["results"], []
    task = results["task"]
    for language, entry in results["languages"].items():
        scores = entry["models"][measured["name"]]
        for key, kind, name in (("accuracy", "accuracy", "Accuracy"), ("macro_f1", "f1", "Macro F1")):
            found.append(
                EvalResult(
                    task_type="text-classification",
                    task_name="Classification by label scoring",
                    dataset_type=(task["hub"] or {}).get("repository") or task["name"],
                    dataset_name=f"{task['name']} ({language})",
                    dataset_config=language,
                    dataset_split=results["split"],
                    metric_type=kind,
                    metric_name=name,
                    metric_value=scores[key],
                    metric_args={"n": entry["n"], "interval": list(scores[f"{key}_interval"]), "confidence": 0.95},
                )
            )
    return found


def _evaluation_view(measured: dict[str, Any] | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    results, name = measured["results"], measured["name"]
    entries = dict(results["languages"])
    if len(entries) > 1:
        entries["average"] = results["average"]
    rows, others = [], [other for other in results["models"] if other != name]
    for language, entry in entries.items():
        scores = entry["models"][name]
        cells = [percent(scores["accuracy"]), interval(scores["accuracy_interval"]), percent(scores["macro_f1"])]
        rows.append(
            [
                escape(language),
                f"{entry['n']:,}" if "n" in entry else "",
                *cells,
                percent(entry["chance"]),
                percent(entry["majority"]),
            ]
        )
    other_rows = [
        [escape(language), *(percent(entry["models"][one]["accuracy"]) for one in (name, *others))]
        for language, entry in entries.items()
    ]
    head = ["language", "this model", *(code(one) for one in others)]
    return {
        "task": escape(results["task"]["name"]),
        "split": escape(results["split"]),
        "dtype": escape(measured["dtype"]),
        "versions": escape(", ".join(f"{package} {version}" for package, version in results["versions"].items())),
        "table": table(
            ["language", "questions", "accuracy", "95% interval", "macro-F1", "chance", "majority"], rows, range(1, 7)
        ),
        "others": table(head, other_rows, range(1, len(head))) if others else None,
    }


def _usage(measured: dict[str, Any] | None) -> dict[str, Any]:
    """The question of the lines that show how to use the model: as the evaluation asked."""
    task = measured["results"]["task"] if measured else {"source": "...", "prompt": "", "labels": None}
    # As they are: a space in front of a label is part of it.
    labels = [json.dumps(label, ensure_ascii=False) for label in (task["labels"] or {}).values()]
    scoring = measured["results"]["scoring"] if measured else {}
    options = {
        name: value for name, value in scoring.items() if value != {"include_end": True, "normalize": None}[name]
    }
    if measured and measured["results"]["source_langs"]:
        options["source_lang"] = next(iter(measured["results"]["source_langs"].values()))
    return {
        "source": code_string(task["source"]),
        "prompt": code_string(task["prompt"]),
        "labels": labels or ['"..."', '"..."'],
        "options": "".join(f", {name}={value!r}" for name, value in options.items()),
        "is_template": measured is not None,
    }


def _parameters_table(model: LayerFusionForCausalLM) -> str:
    rows = [[escape(name), f"{total:,}", f"{trained:,}"] for name, total, trained in model.parameter_table()]
    return table(["module", "parameters", "trained"], rows, [1, 2])
