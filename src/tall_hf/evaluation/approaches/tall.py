"""TALL: what a TALL answers, in whole words; and as the authors ask it, by one sampled token."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from tall_hf.components import PAPER_SAMPLING
from tall_hf.data.words import strip_punctuation
from tall_hf.fingerprints import model_fingerprint
from tall_hf.modeling.text_rows_tall import pad_rows
from tall_hf.modeling.words_tall import target_vocabulary

from ..approach import PROTOCOLS, Answer, Approach, Loader, Question
from ..word_probability import closing_tokens, word_log_probabilities


# The probability with which the authors forbid a token of punctuation.
PAPER_PUNCTUATION_BLOCK = 0.8


class TALL(Approach):
    """Ask a TALL for the next word.

    "clean": the most probable whole words (`TALLForCausalLM.next_words`), and the probability of the missing one. Where a
    word can be written by one row of tokens only, the list has it with that very probability; else the missing word has
    that of the tokenizer's own spelling, and the list adds up all spellings that its beams found.

    "paper": one new token, sampled at temperature 0.7 among the 50 most probable up to 0.95 of the probability; the answer
    is the last word between spaces of the text with it, which is a longer last word of the question's where the token
    continues that one. Tokens of nothing but punctuation are blocked with a probability, by one draw a question.

    Args:
        load: gives a TALLForCausalLM and its TALLProcessor, when they are first needed.
        name: in the table.
        punctuation_block: the probability of that block; without it (0) an approach takes part in "paper" alone, where
            alone it makes a difference.
        num_beams: how many unfinished words are followed at a time; `max(16, 2 * top_k)` when not given.
    """

    reads_translations = True

    def __init__(
        self,
        load: Loader,
        name: str = "tall",
        punctuation_block: float = PAPER_PUNCTUATION_BLOCK,
        num_beams: int | None = None,
    ):
        if not 0 <= punctuation_block <= 1:
            raise ValueError(f"`punctuation_block` is a probability, from 0 to 1, got {punctuation_block}.")
        self.load = load
        self.name = name
        self.punctuation_block = punctuation_block
        self.num_beams = num_beams
        self.protocols = PROTOCOLS if punctuation_block else ("paper",)
        self._loaded = None

    @property
    def loaded(self):
        """The model and its processor; loaded when they are first needed."""
        if self._loaded is None:
            model, processor = self.load()
            self._check(model)
            self._loaded = model.eval(), processor
        return self._loaded

    def settings(self) -> dict[str, Any]:
        model, processor = self.loaded
        tokenizers = (processor.tokenizer, processor.source_tokenizer, processor.llm_tokenizer)
        return {
            "model": model_fingerprint(model, *tokenizers),
            "decoder_start_token_ids": processor.decoder_start_token_ids,
            "languages": [processor.source_lang, processor.pivot_lang],
            "max_lengths": [
                processor.max_source_length,
                processor.max_translation_length,
                processor.max_target_length,
                processor.reserved_target_length,
            ],
            "punctuation_block": self.punctuation_block,
            "num_beams": self.num_beams,
        }

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        translations = [question.translation for question in questions]
        if protocol == "paper":
            words = self._sample_words(questions)
            return [Answer(word, translation=text) for word, text in zip(words, translations, strict=True)]
        model, processor = self.loaded
        texts = [question.truncated for question in questions]
        inputs = processor(text=texts, translations=translations, return_tensors="pt").to(model.device)
        # The LLM is most of the work, and is asked once for both.
        encoded = model.encoder(
            **{name: value for name, value in inputs.items() if not name.startswith("decoder_")}, return_dict=True
        )
        found = model.next_words(
            texts, processor, top_k, translations, num_beams=self.num_beams, encoder_outputs=encoded
        )
        log_probabilities = self._log_probabilities(questions, encoded, inputs["llm_attention_mask"])
        return [
            Answer(tuple(word for word, _ in words), log_probability, translation)
            for words, log_probability, translation in zip(found, log_probabilities, translations, strict=True)
        ]

    def close(self):
        self._loaded = None

    def _check(self, model):
        """Refuse a model that this approach is not about."""

    def _log_probabilities(self, questions, encoded: BaseModelOutput, llm_mask: torch.Tensor) -> list[float]:
        """Natural logarithm of the probability of each missing word, by teacher forcing."""
        model, processor = self.loaded
        # No word is made of the start token, so it stands for what cannot be written, or has no room.
        limit = model.config.max_target_length // 2
        words = processor.encode_target([question.missing_word for question in questions])
        words = [row if 0 < len(row) < limit else processor.decoder_start_token_ids[:1] for row in words]
        longest = max(map(len, words))
        prefixes = processor(
            text=[question.truncated for question in questions],
            translations=[question.translation for question in questions],
            reserved_target_length=max(processor.reserved_target_length, longest + 1),
        )["decoder_input_ids"]
        rows = [prefix + word for prefix, word in zip(prefixes, words, strict=True)]
        ids, mask = (part.to(model.device) for part in pad_rows(rows, processor.decoder_start_token_ids[0], "left"))
        outputs = model(
            encoder_outputs=encoded,
            llm_attention_mask=llm_mask,
            decoder_input_ids=ids,
            decoder_attention_mask=mask,
            use_cache=True,
            logits_to_keep=longest + 1,
        )

        def step(tokens, parents):
            outputs.past_key_values.reorder_cache(parents)
            return model(
                encoder_outputs=BaseModelOutput(encoded.last_hidden_state[parents]),
                llm_attention_mask=llm_mask[parents],
                decoder_input_ids=tokens.unsqueeze(1),
                decoder_attention_mask=torch.cat([mask[parents], mask.new_ones(len(tokens), 1)], dim=1),
                past_key_values=outputs.past_key_values,
                use_cache=True,
            ).logits[:, -1]

        starts, continuations = processor.word_pieces(outputs.logits.shape[-1])
        closing = closing_tokens(processor.tokenizer, continuations)
        return word_log_probabilities(outputs.logits, words, step, starts, continuations, closing).tolist()

    def _sample_words(self, questions) -> list[tuple[str, ...]]:
        """The last word of each question with one sampled token behind it; nothing if the text has no word at all."""
        model, processor = self.loaded
        inputs = processor(
            text=[question.truncated for question in questions],
            translations=[question.translation for question in questions],
            return_tensors="pt",
        ).to(model.device)
        punctuation = punctuation_tokens(processor.tokenizer, model.final_logits_bias.shape[-1])
        ids = model.generate(
            **inputs,
            **{**PAPER_SAMPLING, "max_new_tokens": 1},
            logits_processor=LogitsProcessorList([PunctuationBlock(punctuation, self.punctuation_block)]),
        )
        return [tuple(processor.decode_target(row).split()[-1:]) for row in ids]


class TALLWithTranslations(TALL):
    """A TALL that reads translations which are given, in place of its translator's: what better or worse ones are worth.

    Args:
        load, name: as for `TALL`.
        translations: by the sentence without its last word.

    Raises:
        ValueError: when asked, for a sentence that has no translation.
    """

    reads_translations = False

    def __init__(self, load: Loader, name: str, translations: Mapping[str, str]):
        super().__init__(load, name)
        self.translations = dict(translations)
        self.protocols = ("clean",)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "translations": sorted(self.translations.items())}

    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        if missing := [one.truncated for one in questions if one.truncated not in self.translations]:
            raise ValueError(f"The approach {self.name!r} is given no translation of {missing[0]!r}.")
        asked = [dataclasses.replace(one, translation=self.translations[one.truncated]) for one in questions]
        return super().answer(asked, protocol, top_k)


class PunctuationBlock(LogitsProcessor):
    """Forbids tokens of punctuation with a probability, each row by a draw of its own at every step.

    Args:
        punctuation: which tokens, (vocabulary,).
        probability: from 0, which forbids nothing, to 1.
    """

    def __init__(self, punctuation: torch.BoolTensor, probability: float):
        self.punctuation = punctuation
        self.probability = probability

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        blocked = torch.rand(len(scores), 1, device=scores.device) < self.probability
        return scores.masked_fill(blocked & self.punctuation.to(scores.device), -torch.inf)


def punctuation_tokens(tokenizer, vocab_size: int) -> torch.BoolTensor:
    """Which tokens of a sentencepiece vocabulary are punctuation and nothing else, (vocab_size,)."""
    known = target_vocabulary(tokenizer)
    punctuation = torch.zeros(vocab_size, dtype=torch.bool)
    for piece, index in known.items():
        text = piece.removeprefix("▁")
        if text and index < vocab_size and index not in tokenizer.all_special_ids and not strip_punctuation(text):
            punctuation[index] = True
    return punctuation
