"""Pretrain the dimension alignments on hidden states of a TALL's frozen parts."""

import os
from pathlib import Path

import torch
from datasets import Dataset

from tall_hf.files import remove_unfinished
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.progress import progress_bars

from .alignment_inputs import AlignmentInput, alignment_inputs
from .alignment_report import PretrainingReport
from .alignment_run import AlignmentRun
from .alignment_settings import AlignmentSettings


def pretrain_alignments(
    model: TALLForCausalLM,
    processor: TALLProcessor,
    dataset: Dataset,
    settings: AlignmentSettings | None = None,
    state_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> PretrainingReport:
    """Pretrain the alignments on states of the frozen parts and put them into `model`, in place.

    With the objective "autoencoder" both learn to keep what they read, and the encoder halves are kept (TALL, section 3).
    With "embeddings" alignment 2 alone learns to write, at each of the LLM's tokens, the HR→LR translator's own embedding of
    the same letters (`EmbeddingTargets`): what custom encoder 2, taken over from that translator with `warm_start`, has
    learned to read. (Whether it was taken over, a composed model does not say: without `warm_start` this teaches nothing.)

    Alignment 1 learns on the stage-1 states of the truncated sentences. Alignment 2 learns on the frozen LLM's states of
    the translations with the bridge at its start, that is, with the LLM's own embeddings: what the LLM writes behind an
    untrained custom decoder 1 is no language, and behind a gated bridge, slightly open, it is nearly this. (With the
    "concat" bridge the source states would stand before the translation; they are left out for the same reason. What the LLM
    would write behind the translation, with `look_ahead`, is left out too.) With the bridge "none" there is no alignment 1.

    The states are computed batch by batch and not kept: at the paper's sizes those of 256,000 sentences would take about
    10 GB for each alignment, in half precision. All train in float32 whatever the model's dtype.

    Args:
        model: a TALL; only its alignments change, and only when both are done.
        processor: its processor, for the padding.
        dataset: rows with `input_ids` (truncated sentences) and `llm_input_ids` (translations), unpadded, as `tall
            prepare` writes them. Its own share is held out, so the validation split stays unseen.
        settings: how to train; the paper's when not given.
        state_dir: where the state is kept after each epoch. A call with the same arguments goes on from there after a
            kill, and gives bit for bit what an undisturbed run gives on the same machine; the folder stays, for the
            caller to delete.
        progress: show a progress bar.

    Returns:
        The settings, the history of each alignment, and the variance it explains; `.save(folder)` writes it down.

    Raises:
        ValueError: for alignments that this objective cannot train, a dataset without the columns or with fewer than two rows,
            a state of
            another run, or states or a loss that are not finite.
    """
    settings = settings or AlignmentSettings()
    _check_objective(model, settings.objective)
    parts = alignment_inputs(model, processor, settings.objective)
    dataset = _select(dataset, settings, parts)
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(dataset), generator=generator).tolist()
    validation_size = min(max(1, round(settings.validation_share * len(dataset))), len(dataset) - 1)
    held_out, learned = dataset.select(order[:validation_size]), dataset.select(order[validation_size:])
    if state_dir is not None:
        Path(state_dir).mkdir(parents=True, exist_ok=True)
        remove_unfinished(state_dir)

    was_training = model.training
    model.eval()
    reports, weights = {}, {}
    try:
        with progress_bars("batches", disable=not progress) as bar:
            for part in parts:
                state_file = None if state_dir is None else Path(state_dir) / f"{part.name}.pt"
                run = AlignmentRun(model, part, learned, held_out, settings, state_file)
                reports[part.name] = run.train(bar)
                weights[part.name] = run.best["alignment"]
    finally:
        model.train(was_training)
    for name, state_dict in weights.items():
        getattr(model.encoder, name).load_state_dict(state_dict)
    return PretrainingReport(settings, len(learned), len(held_out), reports)


def _check_objective(model: TALLForCausalLM, objective: str):
    kind = model.config.alignment_type
    if objective == "autoencoder" and kind != "mlp":
        raise ValueError(
            f'Only alignments of the type "mlp" are pretrained as autoencoders, and this TALL\'s are {kind!r}. Train it '
            "without."
        )
    if objective == "embeddings" and kind == "identity":
        raise ValueError('An alignment of the type "identity" has nothing to learn. Train without pretraining it.')


def _select(dataset: Dataset, settings: AlignmentSettings, parts: list[AlignmentInput]) -> Dataset:
    columns = [part.column for part in parts]
    missing = [name for name in columns if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"The dataset has no column {', '.join(missing)}, only {', '.join(dataset.column_names) or 'nothing'}. Make "
            "it with `tall prepare`, or with `processor(text=..., translations=..., text_target=...)`."
        )
    if len(dataset) < 2:
        raise ValueError(
            f"The dataset has {len(dataset)} rows; at least 2 are needed, to train on and to validate on."
        )
    dataset = dataset.select_columns(columns).with_format(None)
    if settings.max_sentences is None or settings.max_sentences >= len(dataset):
        return dataset
    drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(settings.seed))
    return dataset.select(drawn[: settings.max_sentences].tolist())
