"""Pretrain the dimension alignments on hidden states of a TALL's frozen parts."""

import contextlib
import copy
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from datasets import Dataset
from rich.progress import Progress
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.utils import logging

from tall_hf.files import atomic_write, remove_unfinished
from tall_hf.fingerprints import hash_tensors
from tall_hf.modeling.alignment_tall import AlignmentAutoencoder
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.progress import progress_bars

from .alignment_report import AlignmentReport, AlignmentSettings, PretrainingReport
from .alignment_states import FrozenPart, frozen_parts, frozen_states


logger = logging.get_logger(__name__)

# Fewer tokens with a target than this are worth a warning.
_FEW_TARGETS = 0.8


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
    parts = frozen_parts(model, processor, settings.objective)
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
                run = _Pretraining(model, part, learned, held_out, settings, state_file)
                reports[part.name] = run.train(bar)
                weights[part.name] = run.best["alignment"]
    finally:
        model.train(was_training)
    for name, state_dict in weights.items():
        getattr(model.encoder, name).load_state_dict(state_dict)
    return PretrainingReport(settings, len(learned), len(held_out), reports)


@torch.no_grad()
def prediction_error(module: nn.Module, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
    """Mean squared error of what a module makes of hidden states, and the variance it explains.

    The explained variance is 1 - Σ|y - f(x)|² / Σ|y - mean(y)|², both sums over all tokens and all dimensions and the mean
    one vector for all tokens: 1 for the targets themselves, 0 for giving that mean for every token, below 0 for worse.

    Args:
        module: in any mode; evaluated without dropout.
        batches: states of tokens, (tokens, width), and what is to come of them, (tokens, width of the targets).

    Raises:
        ValueError: all targets are the same, or there are none.
    """
    module.eval()
    error, count, mean, spread = 0.0, 0, 0.0, 0.0
    for states, targets in batches:
        if not len(states):
            continue
        error += (module(states) - targets).square().sum().item()
        # Chan's update: the mean and the squared deviations from it, exact where Σy² - n·mean² would cancel.
        batch_mean = targets.mean(dim=0)
        deviations = (targets - batch_mean).square().sum().item()
        difference = batch_mean.cpu().double() - mean
        spread += deviations + difference.square().sum().item() * count * len(targets) / (count + len(targets))
        mean = mean + difference * len(targets) / (count + len(targets))
        count += len(targets)
    if spread == 0:
        raise ValueError("All targets are the same, so there is no variance to explain. Validate on more sentences.")
    return error / (count * mean.numel()), 1 - error / spread


class _Pretraining:
    """The training of one alignment, epoch by epoch, and the state that it can be taken up from."""

    def __init__(self, model, part: FrozenPart, learned: Dataset, held_out: Dataset, settings, state_file):
        self.part, self.settings, self.state_file = part, settings, state_file
        self.learned, self.held_out = learned.select_columns(part.column), held_out.select_columns(part.column)
        self.lengths = [len(row) for block in self.learned.iter(batch_size=1000) for row in block[part.column]]
        alignment: nn.Module = getattr(model.encoder, part.name)
        self.device = next(alignment.parameters()).device
        # A copy, in a precision that small updates can be added in.
        self.alignment = copy.deepcopy(alignment).float()
        self.module = self.alignment
        if part.targets is None:
            with _seeded(self.device, settings.seed):
                self.module = AlignmentAutoencoder(self.alignment, model.config.initializer_range).to(self.device)
        self.module.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=settings.learning_rate)
        self.schedule = ReduceLROnPlateau(
            self.optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience
        )
        self.history, self.best, self.share_with_target = [], None, 1.0
        self.identity = {
            "settings": dataclasses.asdict(settings),
            "dataset": _digest_rows(self.learned, self.held_out),
            "frozen part": _digest_weights(part.module),
            "embeddings": None if part.targets is None else _digest_weights(part.targets.embeddings),
            "source fusion": None if part.fusion is None else _digest_weights(part.fusion),
            "alignment's first weights": _digest_weights(alignment),
        }

    def train(self, bar: Progress) -> AlignmentReport:
        """Train until an epoch limit is reached, from where the state file left off."""
        self._load()
        title = self.part.name.replace("_", " ")
        batches_per_epoch = -(-len(self.learned) // self.settings.batch_size)
        task = bar.add_task(title, total=batches_per_epoch)
        while not self._finished():
            epoch = len(self.history)
            bar.reset(task, description=self._describe(title, epoch), total=batches_per_epoch)
            if not epoch:
                self.share_with_target = self._measure_share()
            with _seeded(self.device, self.settings.seed + epoch):
                # Epoch 0 only looks: it is the "before" of the report.
                train_loss = self._train_epoch(epoch, lambda: bar.advance(task)) if epoch else None
            loss, explained_variance = prediction_error(
                self.module, self._states(self.held_out, range(len(self.held_out)))
            )
            entry = {
                "epoch": epoch,
                "train_loss": train_loss,
                "validation_loss": loss,
                "explained_variance": explained_variance,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
            }
            self.history.append(entry)
            if self.best is None or loss < self.best["loss"]:
                weights = {key: value.clone() for key, value in self.alignment.state_dict().items()}
                self.best = {"loss": loss, "epoch": epoch, "alignment": weights}
            if epoch:
                self.schedule.step(loss)
            self._save()
        bar.update(task, description=self._describe(title, len(self.history)), completed=batches_per_epoch)
        stopped_early = self._gainless() >= self.settings.stop_patience
        return AlignmentReport(self.history, self.best["epoch"], stopped_early, self.share_with_target)

    def _measure_share(self) -> float:
        """Of the held-out sentences' tokens, the share that has a target."""
        if self.part.targets is None:
            return 1.0
        _, known = self.part.targets(self.held_out[self.part.column])
        share = known.float().mean().item()
        if not share:
            raise ValueError(
                f"None of the {len(known)} tokens of {len(self.held_out)} held-out translations has a target: this LLM's "
                'tokenizer does not give their text back, or they are empty. Pretrain with the objective "autoencoder", or '
                "on more sentences."
            )
        if share < _FEW_TARGETS:
            logger.warning(
                f"Only {share:.0%} of the LLM's tokens have an embedding to learn: its tokenizer does not give the text of "
                "the other translations back as it was."
            )
        return share

    def _train_epoch(self, epoch, advance) -> float:
        """One pass over the training sentences; the mean of its batches' losses."""
        self.module.train()
        batch_size = self.settings.batch_size
        # Sentences of like length share a batch, so that the frozen part reads little padding.
        order = get_length_grouped_indices(
            self.lengths, batch_size, generator=torch.Generator().manual_seed(self.settings.seed + epoch)
        )
        total, batches = 0.0, 0
        for states, targets in self._states(self.learned, order):
            advance()
            if not len(states):
                continue
            batches += 1
            loss = mse_loss(self.module(states), targets)
            if not torch.isfinite(loss):
                raise ValueError(
                    f"The loss of {self.part.name} is {loss.item()} in epoch {epoch}, batch {batches}. Lower the learning "
                    f"rate (now {self.optimizer.param_groups[0]['lr']:g})."
                )
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.max_grad_norm)
            self.optimizer.step()
            total += loss.item()
        return total / max(1, batches)

    def _states(self, dataset: Dataset, order) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The frozen part's states of the tokens of each batch, and what is to come of them, both (tokens, width) in float32.

        Padding is left out, and tokens without a target.
        """
        for start in range(0, len(order), self.settings.batch_size):
            rows = dataset[list(order[start : start + self.settings.batch_size])][self.part.column]
            states = frozen_states(self.part, rows).to(self.device)
            if self.part.targets is None:
                yield states, states
            else:
                targets, known = (tensor.to(self.device) for tensor in self.part.targets(rows))
                yield states[known], targets[known]

    def _gainless(self) -> int:
        return len(self.history) - 1 - self.best["epoch"]

    def _finished(self) -> bool:
        if not self.history:
            return False
        return len(self.history) > self.settings.max_epochs or self._gainless() >= self.settings.stop_patience

    def _describe(self, title, epoch) -> str:
        if not self.history:
            return f"{title}: before training"
        explained = self.history[self.best["epoch"]]["explained_variance"]
        return f"{title}: epoch {min(epoch, self.settings.max_epochs)}, {explained:.1%} explained"

    def _save(self):
        """Write the state, so that a kill leaves the last epoch's."""
        if self.state_file is None:
            return
        state = {
            "identity": self.identity,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
            "best": self.best,
            "share_with_target": self.share_with_target,
        }
        with atomic_write(self.state_file) as aside:
            torch.save(state, aside)

    def _load(self):
        if self.state_file is None or not self.state_file.exists():
            return
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        changed = [key for key, value in self.identity.items() if state["identity"].get(key) != value]
        if changed:
            was, now = state["identity"].get("settings", {}), self.identity["settings"]
            if not set(now) <= set(was):
                raise ValueError(
                    f"{self.state_file} was written by an earlier version of tall-hf. Delete {self.state_file.parent} to begin "
                    "anew."
                )
            details = [f"{key} {was.get(key)} → {now[key]}" for key in now if was.get(key) != now[key]]
            raise ValueError(
                f"{self.state_file} holds the state of another pretraining: changed {', '.join(changed + details)}. Go on "
                f"with what it was begun with, or delete {self.state_file.parent} to begin anew."
            )
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.history, self.best, self.share_with_target = state["history"], state["best"], state["share_with_target"]


def _check_objective(model: TALLForCausalLM, objective: str):
    kind = model.config.alignment_type
    if objective == "autoencoder" and kind != "mlp":
        raise ValueError(
            f'Only alignments of the type "mlp" are pretrained as autoencoders, and this TALL\'s are {kind!r}. Train it '
            "without."
        )
    if objective == "embeddings" and kind == "identity":
        raise ValueError('An alignment of the type "identity" has nothing to learn. Train without pretraining it.')


def _select(dataset: Dataset, settings: AlignmentSettings, parts: list[FrozenPart]) -> Dataset:
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


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers that begin at `seed` on every device; the caller's go on undisturbed afterwards."""
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield


def _digest_rows(*datasets: Dataset) -> str:
    digest = hashlib.sha256()
    for dataset in datasets:
        for block in dataset.iter(batch_size=1000):
            digest.update(repr(block).encode())
        digest.update(b"|")
    return digest.hexdigest()


def _digest_weights(module: nn.Module) -> str:
    digest = hashlib.sha256()
    hash_tensors(digest, module.state_dict())
    return digest.hexdigest()
