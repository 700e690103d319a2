"""The model card of a TALL: its data and its page, both from the run that made it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.utils import logging

from tall_hf import hub_cards
from tall_hf.kinds import TALL
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.saving import model_folder

from .evidence import Evaluation, Training, read_evaluation, read_preparation, read_training
from .language import check_language, language_name
from .licenses import join_licenses
from .markup import bar, code, code_string, directed, direction, escape, interval, percent, table
from .page import license_link, licenses_by_role, origin, parts_table, training_view
from .parts import ROLE_TITLES, check_full_name, citations, read_parts
from .predictions import Prediction, held_out_sentences, predict


logger = logging.get_logger(__name__)

TEMPLATE = Path(hub_cards.__file__).parent / "model_card.md.j2"
PIPELINE_TAG = "text-generation"
# The metrics of the missing word: key in results.json, type on the Hub, name, and whether it is a share.
_METRICS = (
    ("accuracy", "accuracy", "Accuracy", True),
    ("top5_accuracy", "top5_accuracy", "Top-5 accuracy", True),
    ("mean_reciprocal_rank", "mean_reciprocal_rank", "Mean reciprocal rank", False),
    ("character_f_score", "chrf", "chrF of the first proposal", False),
    ("perplexity", "perplexity", "Perplexity of the missing word", False),
    ("bits_per_character", "bits_per_character", "Bits per character", False),
)
_CONFIDENCE = 0.95
# What `tall evaluate` compares with, for readers who do not know it.
_APPROACHES = {
    "tall_unblocked": "this model without the paper's block of punctuation tokens",
    "naive": "translates, lets the LLM add a word, translates back",
    "direct": "the LLM goes on in the language itself",
    "soft_prompt": "naive, with a prompt learned on translations",
    "fine_tuned_paper": "all of the LLM trained on the same text, at the paper's learning rate",
    "fine_tuned": "all of the LLM trained on the same text",
    "lora": "the LLM with LoRA and the embeddings of the text's tokens trained on it",
    "translator_only": "a TALL without its LLM, trained on the same text",
    "decoder_only": "the decoder of the translator back, with nothing to read",
    "ngram": "Kneser-Ney on the same text",
    "majority": "the most frequent last words",
}


def model_card(
    folder: str | os.PathLike,
    *,
    repo_id: str,
    language: str | None = None,
    license: str | None = None,
    evaluation: str | os.PathLike | None = None,
    dataset: str | os.PathLike | None = None,
    examples: Sequence[str] | None = None,
    part_licenses: Mapping[str, str] | None = None,
    trainable_only: bool = False,
) -> ModelCard:
    """Write the card of a trained TALL. No network is used.

    Args:
        folder: the `output_dir` of `tall train`, its `model`, or any saved TALL, of which no training is told.
        repo_id: where it will be published, as "org/name".
        language: ISO 639 code of the low-resource language, such as "he"; the translators' own when not given.
        license: identifier of the Hub's; joined from the parts' licences when not given.
        evaluation: the `output` of a `tall evaluate` of this model: its metrics, and what they are compared with.
        dataset: the folder of `tall prepare` that it was trained on.
        examples: beginnings of sentences to show the model's answers to; a few held-out ones of the evaluation or the
            dataset when not given, drawn by hash.
        part_licenses: licences by role, as `look_up_licenses` finds them; of embedded parts, and of folders with a card,
            they are known.
        trainable_only: the light form is published: how it is loaded differs.

    Raises:
        OSError: a folder, or a file in it, is not there.
        ValueError: `repo_id` names no owner, nobody says which language it is, a licence is no identifier, or the evaluation
            or the dataset is not of this model, or the folder holds trained adapters only, which cannot answer.
    """
    check_full_name(repo_id)
    folder = model_folder(folder, TALL)
    model, processor = TALL.load(folder)
    language = _language(language, processor)
    parts = read_parts(model.config)
    licenses = licenses_by_role(parts, part_licenses)
    joined = join_licenses(licenses, license)
    for warning in joined.warnings:
        logger.warning(warning)
    training = read_training(folder)
    preparation = read_preparation(dataset, model, processor, training) if dataset is not None else None
    measured = read_evaluation(evaluation, folder) if evaluation is not None else None
    sentences = held_out_sentences(measured, dataset) if examples is None else [(text, None) for text in examples]
    predictions = predict(model, processor, sentences)
    name = repo_id.split("/")[-1]
    data = ModelCardData(
        language=language,
        license=joined.identifier,
        **license_link(joined, repo_id),
        library_name="transformers",
        pipeline_tag=PIPELINE_TAG,
        tags=["tall", "custom_code", "low-resource-language", "next-word-prediction", "arxiv:2506.05057"],
        base_model=list(dict.fromkeys(part.repo_id for part in parts.values() if part.repo_id)) or None,
        metrics=_metric_types(measured),
        widget=_widget(predictions) or None,
        eval_results=_eval_results(measured),
        model_name=name if measured else None,
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=escape(name),
        repo_id=repo_id,
        trainable_only=trainable_only,
        language_name=language_name(language),
        bridge=model.config.source_bridge,
        llm=origin(parts["llm"]),
        predictions=[_prediction_view(prediction) for prediction in predictions],
        are_drawn=examples is None,
        usage=_usage(predictions),
        parts_table=parts_table(parts, licenses),
        is_embedded=all(part.is_embedded for part in parts.values()),
        unfrozen=[name for part in parts.values() for name in part.unfrozen],
        merged_lora=[ROLE_TITLES[role] for role, part in parts.items() if part.merged_lora],
        parameters_table=_parameters_table(model),
        shares=_shares(model),
        evaluation=_evaluation_view(measured),
        training=training_view(training, model.config, "last_word_accuracy"),
        learns_last_word=_learns_last_word(training),
        preparation=preparation,
        license=joined,
        citations=citations(parts),
    )


def _language(language: str | None, processor: TALLProcessor) -> str:
    """The language's code, as the Hub takes it: what was asked for, or what the translators say of themselves."""
    said = [
        processor.source_lang,
        getattr(processor.source_tokenizer, "source_lang", None),
        getattr(processor.tokenizer, "target_lang", None),
    ]
    found = language or next((code for code in said if isinstance(code, str)), None)
    if found is None:
        raise ValueError(
            "The translators do not say which language this model is for: pass `language` (`--language`), an ISO 639 code "
            "such as 'he'."
        )
    return check_language(found)


def _metric_types(evaluation: Evaluation | None) -> list[str] | None:
    if evaluation is None:
        return None
    kinds = {kind: None for _, entry in _of_model(evaluation) for key, kind, *_ in _METRICS if entry[key] is not None}
    return list(kinds)


def _of_model(evaluation: Evaluation):
    """(protocol, metrics) of the model, for each protocol it was asked under."""
    for protocol, results in evaluation.protocols.items():
        yield protocol, results["approaches"][evaluation.approach]["metrics"]


def _eval_results(evaluation: Evaluation | None) -> list[EvalResult] | None:
    """The model-index: a result for each metric and protocol, with its interval among the metric's arguments."""
    if evaluation is None:
        return None
    text = evaluation.text or "held-out sentences"
    results = []
    for protocol, metrics in _of_model(evaluation):
        for key, kind, name, _ in _METRICS:
            # JSON has no infinity, and an infinite perplexity is no figure to rank by.
            if not isinstance(metrics[key], int | float):
                continue
            arguments = {"protocol": protocol, "n": metrics["n"]}
            if f"{key}_interval" in metrics:
                arguments |= {"interval": list(metrics[f"{key}_interval"]), "confidence": _CONFIDENCE}
            results.append(
                EvalResult(
                    task_type=PIPELINE_TAG,
                    task_name="Missing last word",
                    dataset_type=re.sub(r"[^\w.-]+", "-", text.split(".")[0]) or "text",
                    dataset_name=text,
                    metric_type=kind,
                    metric_name=f"{name} (protocol {protocol})",
                    metric_value=metrics[key],
                    metric_args=arguments,
                )
            )
    return results


def _widget(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Static examples: no inference provider runs remote code, so the page shows what the model said here."""
    entries = []
    for number, prediction in enumerate(predictions, start=1):
        listed = " · ".join(f"{word} {percent(share)}" for word, share in prediction.likely_words)
        for title, output in (("Completed", prediction.completion), ("Next words", listed)):
            entries.append({"text": prediction.text, "example_title": f"{title} {number}", "output": {"text": output}})
    return entries


def _prediction_view(prediction: Prediction) -> dict[str, Any]:
    rows = [[directed(word), percent(share), bar(share)] for word, share in prediction.likely_words]
    return {
        "direction": direction(prediction.text),
        "sentence": directed(prediction.text),
        "added": directed(prediction.added or "…"),
        "translation": escape(prediction.translation),
        "words": table(["next word", "probability", ""], rows, [1]),
        "missing_word": prediction.missing_word and directed(prediction.missing_word),
    }


def _usage(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The sentence of the three lines, and what they answer."""
    if not predictions:
        return {
            "text": '"..."',
            "words": ['{"word": ..., "score": ...}', "..."],
            "pairs": ["(word, probability)", "..."],
        }
    words = predictions[0].words[:3]
    return {
        "text": code_string(predictions[0].text),
        "words": [f'{{"word": {code_string(word)}, "score": {share:.3f}}}' for word, share in words],
        "pairs": [f"({code_string(word)}, {share:.3f})" for word, share in words],
    }


def _parameters_table(model: TALLForCausalLM) -> str:
    rows = [[escape(name), f"{total:,}", f"{trained:,}"] for name, total, _, trained in model.parameter_table()]
    return table(["module", "parameters", "trained"], rows, [1, 2])


def _shares(model: TALLForCausalLM) -> dict[str, str]:
    _, total, _, trained = next(row for row in model.parameter_table() if row[0] == "total")
    return {"total": f"{total:,}", "trained": f"{trained:,}", "share": percent(trained / total)}


def _learns_last_word(training: Training | None) -> bool:
    return bool(training) and training.settings.get("loss_positions") in ("last_word", "last_token")


def _evaluation_view(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    report = evaluation.report
    return {
        "text": code(evaluation.text) if evaluation.text else "a text handed in from Python",
        "versions": escape(", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        "dtype": escape(report["dtype"]),
        "protocols": [
            {
                "name": protocol,
                "n": f"{metrics['n']:,}",
                "accuracy": percent(metrics["accuracy"]),
                "interval": interval(metrics["accuracy_interval"]),
                "learned": report["counts"].get(protocol, {}).get("learned", 0),
                "metrics": table(["metric", "value", "95% interval"], _metric_rows(metrics), [1, 2]),
                "others": _others_table(evaluation, protocol),
            }
            for protocol, metrics in _of_model(evaluation)
        ],
    }


def _metric_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for key, _, name, is_share in _METRICS:
        if metrics[key] is None:
            continue
        bounds = metrics.get(f"{key}_interval")
        value = metrics[key] if isinstance(metrics[key], int | float) else float(metrics[key])
        shown = percent(value) if is_share else f"{value:,.3f}"
        between = "" if bounds is None else interval(bounds) if is_share else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
        rows.append([name, shown, between])
    return rows


def _others_table(evaluation: Evaluation, protocol: str) -> str | None:
    """The model and its rivals on the same questions, the best first; None if there are no rivals."""
    entries = evaluation.protocols[protocol]["approaches"]
    measured = {name: entry["metrics"] for name, entry in entries.items() if "error" not in entry}
    if len(measured) < 2:
        return None
    rows = []
    for name, metrics in sorted(measured.items(), key=lambda item: -item[1]["accuracy"]):
        title, does = code(name), _APPROACHES.get(name, "")
        if name == evaluation.approach:
            title, does = f"**{title}**", "**this model**"
        rows.append([title, does, percent(metrics["accuracy"]), interval(metrics["accuracy_interval"])])
    return table(["approach", "what it does", "accuracy", "95% interval"], rows, [2, 3])
