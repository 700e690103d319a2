"""Rows of token ids to padded batches: a TALL's, with a loss on the missing word only, and those of a LayerFusionForCausalLM."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.modeling.text_rows_tall import pad_rows
from tall_hf.modeling.words_tall import target_vocabulary

from .words import is_word


LOSS_POSITIONS = ("last_token", "last_word", "last_n", "continuation", "all")


@dataclass
class LastTokenCollator:
    """Pad source, translation and target, shift the target right, and choose where there is a loss.

    Rows hold `input_ids`, `llm_input_ids` and `labels`, as `processor(text=..., translations=..., text_target=...)` makes
    them: unpadded, `labels` being the whole target sentence. Other columns are ignored, but for `continuation_length`, how
    many labels stand behind the truncated sentence, which `tall_hf.data.prepare` adds and "continuation" needs.

    Args:
        processor: the model's processor, for padding and start tokens and to know which tokens begin a word.
        loss_positions: "last_word" learns every token of the last word and of what is written behind it, such as a full stop
            (`split_last_word` takes it off), which is what the task asks for; "last_token"
            only its last token, as the authors' code does; "last_n" the last `last_n` tokens; "continuation" every token
            behind the truncated sentence, several words where the corpus was truncated at random words; "all" the whole
            sentence, most of which the source side has read.
        last_n: how many tokens "last_n" learns.

    Raises:
        ValueError: for unknown loss positions, a column that is missing, or a target without tokens.
    """

    # The columns of token ids that a row is made of.
    row_columns: ClassVar[tuple[str, ...]] = ("input_ids", "llm_input_ids", "labels")

    processor: TALLProcessor
    loss_positions: str = "last_word"
    last_n: int | None = None

    def __post_init__(self):
        if self.loss_positions not in LOSS_POSITIONS:
            raise ValueError(
                f"`loss_positions` must be one of {', '.join(map(repr, LOSS_POSITIONS))}, got {self.loss_positions!r}."
            )
        if (self.loss_positions == "last_n") != (self.last_n is not None):
            raise ValueError('`last_n` goes with `loss_positions="last_n"`, and only with it.')
        if self.last_n is not None and self.last_n < 1:
            raise ValueError(f"`last_n` must be at least 1, got {self.last_n}.")

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate rows to the model's forward arguments, padded on the right; `labels` are -100 without a loss."""
        targets = [self._target(row) for row in rows]
        start_ids = self.processor.decoder_start_token_ids
        decoder_rows = [start_ids + target[:-1] for target in targets]
        # A start token's successor is the first word only behind the last start token.
        label_rows = [
            [-100] * (len(start_ids) - 1) + self._labels(target, row)
            for target, row in zip(targets, rows, strict=True)
        ]

        batch = {}
        for name, ids, pad in (
            (
                "input_ids",
                [list(_column(row, "input_ids")) for row in rows],
                self.processor.source_tokenizer.pad_token_id,
            ),
            (
                "llm_input_ids",
                [list(_column(row, "llm_input_ids")) for row in rows],
                self.processor.llm_tokenizer.pad_token_id,
            ),
            ("decoder_input_ids", decoder_rows, start_ids[0]),
        ):
            batch[name], batch[name.replace("input_ids", "attention_mask")] = pad_rows(ids, pad, "right")
        batch["labels"] = pad_rows(label_rows, -100, "right")[0]
        return batch

    def _target(self, row) -> list[int]:
        """A row's target without an end or padding that a tokenizer may have put behind it, its end kept if too long."""
        target = list(_column(row, "labels"))
        tokenizer = self.processor.tokenizer
        while target and target[-1] in (tokenizer.eos_token_id, tokenizer.pad_token_id):
            target.pop()
        if not target:
            raise ValueError("A row's `labels` hold no token but the end's, so there is nothing to learn from it.")
        if self.processor.max_target_length is not None:
            # The last target token is predicted and never read.
            longest = self.processor.max_target_length - len(self.processor.decoder_start_token_ids) + 1
            target = target[-longest:]
        return target

    def _labels(self, target: list[int], row: dict[str, Any]) -> list[int]:
        learned = {
            "last_token": lambda: 1,
            "last_word": lambda: self._last_word_length(target),
            "last_n": lambda: self.last_n,
            "continuation": lambda: int(_column(row, "continuation_length")),
            "all": lambda: len(target),
        }[self.loss_positions]()
        silent = max(0, len(target) - learned)
        return [-100] * silent + target[silent:]

    @cached_property
    def word_masks(self) -> tuple[torch.BoolTensor, torch.BoolTensor]:
        """Which target tokens begin a word, and which have a letter or a digit, each (vocabulary,).

        The last word is the last one with a letter or a digit: a mark that stands alone begins none.
        """
        starts, continuations = self.processor.word_pieces()
        lettered = torch.zeros_like(starts)
        lettered[[index for piece, index in target_vocabulary(self.processor.tokenizer).items() if is_word(piece)]] = (
            True
        )
        return starts, lettered & (starts | continuations)

    def _last_word_length(self, target: list[int]) -> int:
        starts, lettered = self.word_masks
        last = max((index for index, token in enumerate(target) if lettered[token]), default=len(target))
        begins = [index for index, token in enumerate(target[: last + 1]) if starts[token]]
        return len(target) - begins[-1] if begins else len(target)


def _column(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        how = (
            "`tall prepare`"
            if name == "continuation_length"
            else "`processor(text=..., translations=..., text_target=...)`"
        )
        raise ValueError(f"A row has no `{name}`, only {', '.join(sorted(row)) or 'nothing'}. Make rows with {how}.")
    return row[name]


@dataclass
class LayerFusionCollator:
    """Pad sources on the right, and what the LLM reads and learns on the left.

    Rows are as `LayerFusionProcessor(text=..., prompt=..., text_target=...)` makes them; other columns are ignored.

    Args:
        processor: the model's processor, for the padding tokens.
    """

    row_columns: ClassVar[tuple[str, ...]] = ("source_input_ids", "input_ids", "mm_token_type_ids", "labels")

    processor: LayerFusionProcessor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate rows to the model's forward arguments; KeyError for a row without one of their columns."""
        return self.processor.pad({name: [row[name] for row in rows] for name in self.row_columns}).data
