"""The training of one alignment, epoch by epoch, and the state that it can be taken up from."""

import contextlib
import copy
import dataclasses
import hashlib
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

from tall_hf.files import atomic_write
from tall_hf.fingerprints import hash_tensors
from tall_hf.modeling.alignment_tall import AlignmentAutoencoder
from tall_hf.modeling.modeling_tall import TALLForCausalLM

from .alignment_inputs import AlignmentInput, input_states
from .alignment_report import AlignmentReport
from .alignment_settings import AlignmentSettings


logger = logging.get_logger(__name__)

# Fewer tokens with a target than this are worth a warning.
_FEW_TARGETS = 0.8


class AlignmentRun:
    """The training of one alignment, on a copy of it.

    Args:
        model: a TALL.
        part: which alignment, and what it reads and learns.
        learned, held_out: rows with the column of `part`, to train and to validate on.
        settings: how to train.
        state_file: where the state is kept after each epoch; nowhere when None.
    """

    def __init__(
        self,
        model: TALLForCausalLM,
        part: AlignmentInput,
        learned: Dataset,
        held_out: Dataset,
        settings: AlignmentSettings,
        state_file: Path | None,
    ):
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
                f"Only {share:.0%} of the LLM's tokens have an embedding to learn: the others have no letters, as the marks of "
                "a sentence's ends, or are of translations that its tokenizer does not give back as they were."
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
            states = input_states(self.part, rows).to(self.device)
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
