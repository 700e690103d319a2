"""EmbeddingTargets: what the HR→LR translator's own encoder would read of a translation, at each of the LLM's tokens."""

import functools
import itertools
import re

import torch

from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.modeling.text_rows_tall import as_text


class EmbeddingTargets:
    """For each token of the LLM the mean embedding of the translator's pieces of the same letters, weighed by overlap.

    Two tokenizers cut a text differently, but most cut it between spaces first, so pieces are laid over the tokens word
    by word, each as long as its letters. (Without spaces a sentence is one word, and where pieces are unknown or normalised
    the letters behind them are met less exactly.) The embeddings are scaled as the translator's encoder scales them, which is what
    custom encoder 2 read before it was taken over with `warm_start`.

    Args:
        model: a TALL whose HR→LR translator is a Marian one with one embedding for both sides, as OPUS-MT's are.
        processor: its processor; the LLM's tokenizer must know where in a text its tokens stand, as fast ones do.

    Raises:
        ValueError: for another translator or tokenizer.
    """

    def __init__(self, model: TALLForCausalLM, processor: TALLProcessor):
        part = model.config.hr_lr_config
        if part.model_type != "marian" or not part.share_encoder_decoder_embeddings:
            raise ValueError(
                'The objective "embeddings" needs a Marian translator HR→LR with one embedding for both sides, as OPUS-MT\'s: '
                f"this one's is of type {part.model_type!r}"
                + (", with two" if part.model_type == "marian" else "")
                + '. Pretrain with the objective "autoencoder", or train without.'
            )
        if not processor.llm_tokenizer.is_fast:
            raise ValueError(
                f'The objective "embeddings" needs an LLM\'s tokenizer that tells where in the text its tokens stand, and '
                f'{type(processor.llm_tokenizer).__name__} does not. Pretrain with the objective "autoencoder".'
            )
        self.llm_tokenizer, self.tokenizer = processor.llm_tokenizer, processor.tokenizer
        self.embeddings = model.decoder.get_input_embeddings()
        self.scale = model.decoder.embed_scale
        self._pieces = functools.lru_cache(maxsize=100_000)(self._pieces_of)

    @torch.no_grad()
    def __call__(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.BoolTensor]:
        """The targets of some translations.

        Args:
            rows: the LLM's tokens of each, as in `llm_input_ids`, unpadded.

        Returns:
            The targets, (tokens of all rows, HR→LR width) in float32, and which of them there are: none for special tokens
            and spaces, nor for a translation that the tokenizer does not cut the same way when its text is read again. What is
            left of a word where a translation was cut is read as it stands.
        """
        tokens, pieces, weights = [], [], []
        first = 0
        for row in rows:
            for token, piece, weight in self._overlaps(row):
                tokens.append(first + token)
                pieces.append(piece)
                weights.append(weight)
            first += len(row)
        weight = self.embeddings.weight
        targets = torch.zeros(first, weight.shape[1], device=weight.device)
        total = torch.zeros(first, device=weight.device)
        if tokens:
            index = torch.tensor(tokens, device=weight.device)
            shares = torch.tensor(weights, dtype=torch.float32, device=weight.device)
            embedded = weight[torch.tensor(pieces, device=weight.device)].float()
            targets.index_add_(0, index, shares[:, None] * embedded)
            total.index_add_(0, index, shares)
        known = total > 0
        targets[known] *= self.scale / total[known, None]
        return targets, known

    def _overlaps(self, row: list[int]) -> list[tuple[int, int, float]]:
        """(token's place in the row, piece's id, letters in common) for all that have some."""
        text = self.llm_tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        encoded = self.llm_tokenizer(text, return_offsets_mapping=True, split_special_tokens=True, verbose=False)
        if list(encoded["input_ids"]) != list(row):
            return []
        spans = [
            (word.start() + start, word.start() + end, piece)
            for word in re.finditer(r"\S+", text)
            for start, end, piece in self._pieces(word.group())
        ]
        found, first = [], 0
        for token, (start, end) in enumerate(encoded["offset_mapping"]):
            # Both stand in the order of the text: what ends before this token ends before all that follow. Several tokens may
            # share a letter of several bytes.
            while first < len(spans) and spans[first][1] <= start:
                first += 1
            for piece_start, piece_end, piece in itertools.islice(spans, first, None):
                if piece_start >= end:
                    break
                found.append((token, piece, min(end, piece_end) - max(start, piece_start)))
        return found

    def _pieces_of(self, word: str) -> list[tuple[float, float, int]]:
        """(start, end, id) of the translator's pieces of a word, from 0 to its length."""
        ids = self.tokenizer(*as_text(self.tokenizer, [word]), add_special_tokens=False, verbose=False)["input_ids"]
        unknown = [piece == self.tokenizer.unk_token_id for piece in ids]
        lengths = [
            0 if is_unknown else len(piece.replace("▁", ""))
            for piece, is_unknown in zip(self.tokenizer.convert_ids_to_tokens(ids), unknown, strict=True)
        ]
        # What is unknown has the letters that the others leave over.
        left = max(0.0, len(word) - sum(lengths)) / max(1, sum(unknown))
        lengths = [left if is_unknown else length for is_unknown, length in zip(unknown, lengths, strict=True)]
        if not any(lengths):
            lengths = [1] * len(ids)
        # A normaliser may have lengthened the word or shortened it.
        scale, start, spans = len(word) / max(sum(lengths), 1), 0.0, []
        for piece, length in zip(ids, lengths, strict=True):
            spans.append((start, start + scale * length, piece))
            start += scale * length
        return spans
