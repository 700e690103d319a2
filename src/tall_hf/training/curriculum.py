"""Where in a sentence there is a loss, and how that changes in the course of a training."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LossCurriculum:
    """Learn whole sentences first, then what the task asks for.

    A function of the step alone, so a resumed training goes on exactly where it was.

    Args:
        loss_positions: what is learned in the end: "last_token", "last_word", "last_n" or "all"; with no share of "all"
            before it also "continuation".
        share: part of the training, in [0, 1), that learns "all" tokens before that.
    """

    loss_positions: str
    share: float = 0.0

    def positions_at(self, step: int, max_steps: int) -> str:
        """Loss positions of the optimizer step that follows `step` finished ones, of `max_steps` in all."""
        return "all" if step < self.share * max_steps else self.loss_positions

    @property
    def collated_positions(self) -> str:
        """The positions that batches must come with, so that every stage can be cut out of them."""
        return "all" if self.share > 0 else self.loss_positions


def narrow_labels(
    labels: torch.LongTensor,
    loss_positions: str,
    last_n: int | None,
    word_masks: tuple[torch.BoolTensor, torch.BoolTensor],
) -> torch.LongTensor:
    """Keep of a whole sentence's labels those at `loss_positions`, as LastTokenCollator would have made them.

    Args:
        labels: (batch, target length), -100 on either side of a row's tokens and nowhere between them.
        loss_positions: "last_token", "last_word", "last_n" or "all".
        last_n: how many tokens "last_n" keeps.
        word_masks: which token ids begin a word, and which have a letter or a digit, as LastTokenCollator has them.

    Returns:
        Labels of the same shape, -100 where there is no loss any more.
    """
    if loss_positions == "all":
        return labels
    tokens = labels != -100
    behind = tokens.flip(1).cumsum(1).flip(1)  # a row's tokens from here to its end: 1 at its last token
    if loss_positions == "last_word":
        begins, lettered = (tokens & mask.to(labels.device)[labels.clamp(min=0)] for mask in word_masks)
        last_letter = torch.where(lettered, behind, behind.max() + 1).min(1, keepdim=True).values
        # Marks that stand alone behind the last letter begin no word.
        begins &= (behind >= last_letter) | ~lettered.any(1, keepdim=True)
        # A row in which no word begins, a target cut by truncation, is learned whole.
        whole = torch.where(begins.any(1), 0, behind.max(1).values)
        kept = torch.where(begins, behind, behind.max() + 1).min(1).values
        kept = torch.where(begins.any(1), kept, whole)
    else:
        kept = torch.full_like(behind[:, 0], 1 if loss_positions == "last_token" else last_n)
    return labels.masked_fill(behind > kept.unsqueeze(1), -100)
