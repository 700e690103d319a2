"""Beams that share the cache of their text: each reads, by a mask, the text and its own tokens, and nothing is copied."""

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class BeamTree:
    """The cache of a batch of texts, and the unfinished words behind each of them as a tree of tokens.

    A cache with a row for each beam copies a text's states for all of its beams at every step, which takes most of the
    time of a search by letters. Here a text has one row; a step appends the new tokens of all of its beams to that row,
    and a mask of four dimensions lets each see its text and the tokens that it grew from.

    Args:
        llm: a causal language model for which `can_grow` holds.
        cache: what it made of the texts; grows.
        mask: 1 for the texts' tokens, 0 for padding, (batch, length).
        filler: a token id, for places of texts that have fewer beams than others.
    """

    def __init__(self, llm: PreTrainedModel, cache: DynamicCache, mask: torch.LongTensor, filler: int):
        self.llm = llm
        self.cache = cache
        self.filler = filler
        self.visible = mask.bool()
        self.positions = mask.sum(dim=1)  # of the next tokens
        # For each row of the last logits, first the texts themselves: its text, and which tokens behind it the row has.
        self.texts = torch.arange(len(mask), device=mask.device)
        self.grown = mask.new_zeros(len(mask), 0, dtype=torch.bool)

    @staticmethod
    def can_grow(llm: PreTrainedModel, cache) -> bool:
        """Whether the model takes such a mask, and its cache keeps every token."""
        return (
            getattr(llm, "_supports_attention_backend", False)
            and llm.config._attn_implementation in ("eager", "sdpa")
            and isinstance(cache, DynamicCache)
            and all(type(layer) is DynamicLayer for layer in cache.layers)
        )

    def step(self, tokens: torch.LongTensor, parents: torch.LongTensor) -> torch.Tensor:
        """What is predicted behind `tokens[i]` behind row `parents[i]` of the last call; see `search_words`.

        Args:
            tokens, parents: (rows,); rows of one text stay side by side, the texts in their order.

        Returns:
            Logits, (rows, vocabulary).
        """
        texts, device = self.texts[parents], tokens.device
        self._keep(texts.unique_consecutive())
        texts = self.texts[parents]
        counts = texts.bincount(minlength=len(self.visible))
        places = torch.arange(len(texts), device=device) - (counts.cumsum(0) - counts)[texts]
        width = int(counts.max())
        own = torch.zeros(len(texts), width, dtype=torch.bool, device=device)
        own[torch.arange(len(texts), device=device), places] = True
        grown = torch.cat([self.grown[parents], own], dim=1)

        ids = torch.full((len(counts), width), self.filler, device=device)
        ids[texts, places] = tokens
        # A place without a beam sees itself, for a softmax over nothing is no number.
        seen = torch.zeros(len(counts), width, self.visible.shape[1] + grown.shape[1], dtype=torch.bool, device=device)
        seen[:, :, -width:] = torch.eye(width, dtype=torch.bool, device=device)
        seen[texts, places] = torch.cat([self.visible[texts], grown], dim=1)
        dtype = self.llm.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
        logits = self.llm(
            input_ids=ids,
            attention_mask=mask.unsqueeze(1),
            position_ids=self.positions.unsqueeze(1).expand(-1, width),
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        self.texts, self.grown, self.positions = texts, grown, self.positions + 1
        return logits[texts, places]

    def _keep(self, texts):
        """Let go of the texts that have no beams any more, once they are half of all."""
        if 2 * len(texts) > len(self.visible):
            return
        self.cache.reorder_cache(texts)  # which looks after the devices of its layers
        self.visible, self.positions = self.visible[texts], self.positions[texts]
        new_places = torch.full((int(self.texts.max()) + 1,), -1, device=texts.device)
        new_places[texts] = torch.arange(len(texts), device=texts.device)
        self.texts = new_places[self.texts]
