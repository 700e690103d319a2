"""What a causal language model says next, in whole words: by beams, by probability, and by sampling as the paper does."""

import inspect

import torch

from tall_hf.components import PAPER_SAMPLING
from tall_hf.modeling.frozen_parts_tall import last_positions
from tall_hf.modeling.text_rows_tall import pad_rows
from tall_hf.modeling.words_tall import search_words, word_pieces

from ..beam_tree import BeamTree
from ..word_probability import closing_tokens, word_log_probabilities


# Hebrew by a byte-level vocabulary made for English takes about two tokens a letter.
MAX_WORD_TOKENS = 24


class LanguageModel:
    """A causal language model that is asked for the next word of texts.

    Args:
        llm: a causal language model with its head.
        tokenizer: its tokenizer, sentencepiece or byte-level BPE.
        prompt: embeddings of a soft prompt, (prompt length, embedding width), that stand before every text.
        num_beams: how many unfinished words are followed at a time; `max(16, 2 * top_k)` when not given.
    """

    def __init__(self, llm, tokenizer, prompt: torch.Tensor | None = None, num_beams: int | None = None):
        self.llm = llm.eval()
        self.tokenizer = tokenizer
        self._padding = padding_token(tokenizer)
        self.prompt = None if prompt is None else prompt.to(llm.device, llm.dtype)
        self.num_beams = num_beams
        self.vocab_size = llm.get_output_embeddings().weight.shape[0]
        self.starts, self.continuations = word_pieces(tokenizer, self.vocab_size)
        self.closing = closing_tokens(tokenizer, self.continuations)
        self._takes_positions = "position_ids" in inspect.signature(llm.forward).parameters
        self.max_length = getattr(llm.config.get_text_config(), "max_position_embeddings", None)

    @torch.inference_mode()
    def next_words(self, texts: list[str], top_k: int) -> list[list[tuple[str, float]]]:
        """The most probable next words of each text with their probabilities, as `TALLForCausalLM.next_words` gives them."""
        ids, mask = self._batch(encode(self.tokenizer, texts), MAX_WORD_TOKENS)
        logits, step = self._read(ids, mask, logits_to_keep=1)
        found = search_words(
            logits[:, -1],
            step,
            self.starts,
            self.continuations,
            decode=self._decode_word,
            num_beams=min(self.num_beams or max(16, 2 * top_k), self.vocab_size),
            max_word_tokens=MAX_WORD_TOKENS,
        )
        return [words[:top_k] for words in found]

    @torch.inference_mode()
    def log_probabilities(self, texts: list[str], words: list[str]) -> list[float]:
        """Natural logarithm of the probability that each text goes on with its word, see `word_log_probabilities`."""
        prefixes, wholes = encode_words(self.tokenizer, texts, words)
        # Where a word merges with its text and no token is left of it, nothing can be said: the padding stands in for one.
        merged = torch.tensor([len(whole) <= len(prefix) for prefix, whole in zip(prefixes, wholes, strict=True)])
        wholes = [whole + [self._padding] if left else whole for whole, left in zip(wholes, merged, strict=True)]
        tokens = [whole[len(prefix) :] for prefix, whole in zip(prefixes, wholes, strict=True)]
        ids, mask = self._batch(wholes, 1)
        logits, step = self._read(ids, mask, logits_to_keep=max(map(len, tokens)) + 1)
        found = word_log_probabilities(logits, tokens, step, self.starts, self.continuations, self.closing)
        return found.masked_fill(merged.to(found.device), -torch.inf).tolist()

    @torch.inference_mode()
    def sample_words(self, texts: list[str]) -> list[str]:
        """The first word of each text's continuation, sampled as a TALL samples; empty if there is none."""
        ids, mask = self._batch(encode(self.tokenizer, texts), PAPER_SAMPLING["max_new_tokens"])
        inputs = {"input_ids": ids} if self.prompt is None else {"inputs_embeds": self._embed(ids, mask)}
        # All that its own generation settings would change, as those of instruction-tuned models do.
        sampling = {**PAPER_SAMPLING, "repetition_penalty": 1.0}
        new = self.llm.generate(**inputs, attention_mask=mask, pad_token_id=self._padding, **sampling)
        if self.prompt is None:
            new = new[:, ids.shape[1] :]
        continuations = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [next(iter(text.split()), "") for text in continuations]

    def _batch(self, rows, reserved) -> tuple[torch.LongTensor, torch.LongTensor]:
        """Rows padded on the left, with room for the soft prompt before each, as ids and mask, (batch, length)."""
        prompt_length = 0 if self.prompt is None else len(self.prompt)
        if self.max_length is not None:
            longest = max(1, self.max_length - reserved - prompt_length)
            rows = [row[-longest:] for row in rows]
        rows = [[self._padding] * prompt_length + row for row in rows]
        ids, mask = pad_rows(rows, self._padding, "left")
        return ids.to(self.llm.device), mask.to(self.llm.device)

    def _embed(self, ids, mask) -> torch.Tensor:
        """Embeddings of a batch, with the soft prompt where room was left for it."""
        embeddings = self.llm.get_input_embeddings()(ids)
        first = ids.shape[1] - mask.sum(dim=1, keepdim=True)
        columns = first + torch.arange(len(self.prompt), device=ids.device)
        rows = torch.arange(len(ids), device=ids.device).unsqueeze(1)
        embeddings[rows, columns] = self.prompt.to(embeddings.dtype)
        return embeddings

    def _read(self, ids, mask, logits_to_keep):
        """Logits at the last positions of a batch, and the `step` that goes on from there (see `search_words`)."""
        inputs = {"input_ids": ids} if self.prompt is None else {"inputs_embeds": self._embed(ids, mask)}
        kept = last_positions(logits_to_keep, ids.shape[1], ids.device)
        outputs = self.llm(**inputs, **self._masks(mask, ids.shape[1]), use_cache=True, logits_to_keep=kept)
        cache = outputs.past_key_values
        if self._takes_positions and BeamTree.can_grow(self.llm, cache):
            return outputs.logits, BeamTree(self.llm, cache, mask, self._padding).step

        def step(tokens, parents):
            nonlocal mask
            cache.reorder_cache(parents)
            mask = torch.cat([mask[parents], mask.new_ones(len(tokens), 1)], dim=1)
            return self.llm(
                input_ids=tokens.unsqueeze(1), **self._masks(mask, 1), past_key_values=cache, use_cache=True
            ).logits[:, -1]

        return outputs.logits, step

    def _masks(self, mask, length):
        if not self._takes_positions:  # Bloom, and others that count them by the mask
            return {"attention_mask": mask}
        # Padding on the left must not move a text.
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return {"attention_mask": mask, "position_ids": positions[:, -length:]}

    def _decode_word(self, tokens: list[int]) -> str:
        word = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        # Byte-level tokens may end within a character.
        return "" if "\ufffd" in word else word


def encode(tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of texts, as their language model reads them; an empty text still is one token."""
    filler = padding_token(tokenizer) if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [row or [filler] for row in _rows(tokenizer, texts)]


def encode_words(tokenizer, texts: list[str], words: list[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of texts, and of the same texts with a further word each, which only adds tokens."""
    prefixes, rows = encode(tokenizer, texts), _rows(tokenizer, texts)
    wholes = _rows(tokenizer, [f"{text} {word}" for text, word in zip(texts, words, strict=True)])
    # Hardly ever does a tokenizer write the text itself in another way when a word stands behind it.
    return prefixes, [prefix + whole[len(row) :] for prefix, row, whole in zip(prefixes, rows, wholes, strict=True)]


def _rows(tokenizer, texts):
    # As a TALL's processor: what looks like a special token in a text is text.
    return tokenizer(texts, split_special_tokens=True, verbose=False)["input_ids"]


def padding_token(tokenizer) -> int:
    """What to pad with, where the attention mask is 0."""
    for index in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if index is not None:
            return index
    return 0
