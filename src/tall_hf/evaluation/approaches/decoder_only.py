"""DecoderOnly: the HR→LR translator's decoder goes on with the text and has nothing to translate."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from tall_hf.components import decoder_start_ids
from tall_hf.fingerprints import model_fingerprint
from tall_hf.modeling.text_rows_tall import as_text
from tall_hf.modeling.words_tall import search_words, word_pieces

from ..approach import Answer, Approach, Loader, Question
from ..word_probability import closing_tokens, word_log_probabilities


# As `TALLForCausalLM.next_words`.
_MAX_WORD_TOKENS = 12


class DecoderOnly(Approach):
    """Ask the frozen translator that a TALL writes with for the next word, with the empty sentence as its source.

    What it finds is what the decoder knows of the language by itself. The search for words and their probabilities are those
    of `TALL` under "clean"; the paper has no such approach.

    Args:
        load: gives the HR→LR translator and its tokenizer, when they are first needed.
        name: in the table.
        source_lang: code of the low-resource language, where the translator needs one.
        num_beams: how many unfinished words are followed at a time; `max(16, 2 * top_k)` when not given.
    """

    protocols = ("clean",)

    def __init__(
        self, load: Loader, name: str = "decoder_only", source_lang: str | None = None, num_beams: int | None = None
    ):
        self.load = load
        self.name = name
        self.source_lang = source_lang
        self.num_beams = num_beams
        self._decoder: _Decoder | None = None

    @property
    def decoder(self) -> "_Decoder":
        """What is asked; loaded when it is first needed."""
        if self._decoder is None:
            self._decoder = _Decoder(*self.load(), self.source_lang)
        return self._decoder

    def settings(self) -> dict[str, Any]:
        hr_lr = model_fingerprint(self.decoder.model, self.decoder.tokenizer)
        return {"hr_lr": hr_lr, "source_lang": self.source_lang, "num_beams": self.num_beams}

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        num_beams = self.num_beams or max(16, 2 * top_k)
        found = self.decoder.next_words([question.truncated for question in questions], top_k, num_beams)
        log_probabilities = self.decoder.log_probabilities(
            [question.truncated for question in questions], [question.missing_word for question in questions]
        )
        return [
            Answer(tuple(words), log_probability)
            for words, log_probability in zip(found, log_probabilities, strict=True)
        ]

    def close(self):
        self._decoder = None


class _Decoder:
    """The translator's decoder, reading one length at a time: it counts positions by column, so nothing is padded."""

    def __init__(self, model, tokenizer, source_lang):
        self.model = model.eval()
        self.tokenizer = tokenizer
        if source_lang is not None and hasattr(tokenizer, "tgt_lang"):
            tokenizer.tgt_lang = source_lang
        self.start = decoder_start_ids(model, tokenizer, source_lang)
        self.vocab_size = model.get_output_embeddings().weight.shape[0]
        self.starts, self.continuations = word_pieces(tokenizer, self.vocab_size)
        self.closing = closing_tokens(tokenizer, self.continuations)
        self.max_length = model.config.max_position_embeddings

    def next_words(self, texts: list[str], top_k: int, num_beams: int) -> list[list[str]]:
        longest = self.max_length - _MAX_WORD_TOKENS - len(self.start)
        rows = [self.start + row[-longest:] for row in self._encode(texts)]
        answers = [[]] * len(texts)
        for chosen in _of_one_length(rows):
            logits, step = self._read([rows[i] for i in chosen])
            found = search_words(
                logits[:, -1],
                step,
                self.starts,
                self.continuations,
                decode=lambda tokens: self.tokenizer.decode(tokens, skip_special_tokens=True).strip(),
                num_beams=min(num_beams, self.vocab_size),
                max_word_tokens=_MAX_WORD_TOKENS,
            )
            for i, words in zip(chosen, found, strict=True):
                answers[i] = [word for word, _ in words[:top_k]]
        return answers

    def log_probabilities(self, texts: list[str], words: list[str]) -> list[float]:
        # No word is made of the start token, so it stands for what cannot be written, or has no room.
        limit = self.max_length // 2
        tokens = [row if 0 < len(row) < limit else self.start[:1] for row in self._encode(words)]
        rows = []
        for prefix, word in zip(self._encode(texts), tokens, strict=True):
            longest = self.max_length - max(len(word) + 1, _MAX_WORD_TOKENS) - len(self.start)
            rows.append(self.start + prefix[-longest:] + word)
        answers = [0.0] * len(texts)
        for chosen in _of_one_length(rows):
            logits, step = self._read([rows[i] for i in chosen])
            missing = [tokens[i] for i in chosen]
            found = word_log_probabilities(logits, missing, step, self.starts, self.continuations, self.closing)
            for i, log_probability in zip(chosen, found.tolist(), strict=True):
                answers[i] = log_probability
        return answers

    def _encode(self, texts):
        # As `TALLProcessor.encode_target`: what looks like a special token in a text is text.
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return self.tokenizer(text_target=as_text(self.tokenizer, texts), **options)["input_ids"]

    def _read(self, rows):
        """Logits behind every token of rows of one length, and the `step` that goes on from there (see `search_words`)."""
        ids = torch.tensor(rows, device=self.model.device)
        # The empty sentence is its end alone.
        end = torch.full((1, 1), self.tokenizer.eos_token_id, device=ids.device)
        source = self.model.get_encoder()(input_ids=end).last_hidden_state

        def decode(ids, cache):
            outputs = self.model(
                encoder_outputs=BaseModelOutput(source.expand(len(ids), -1, -1)),
                decoder_input_ids=ids,
                past_key_values=cache,
                use_cache=True,
            )
            return outputs.logits, outputs.past_key_values

        logits, cache = decode(ids, None)

        def step(tokens, parents):
            nonlocal cache
            cache.reorder_cache(parents)
            logits, cache = decode(tokens.unsqueeze(1), cache)
            return logits[:, -1]

        return logits, step


def _of_one_length(rows: list[list[int]]) -> Iterator[list[int]]:
    """Which rows are of each length."""
    for length in sorted({len(row) for row in rows}):
        yield [i for i, row in enumerate(rows) if len(row) == length]
