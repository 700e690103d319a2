"""TALLProcessor: the three tokenizers of a TALL, from text and its translation to the model's inputs."""

from pathlib import Path

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs, Unpack

from .text_rows_tall import as_text, check_texts, ensure_padding, pad_rows, token_rows, warn_if_longer, without_code
from .words_tall import word_pieces


class TALLProcessor(ProcessorMixin):
    """The target, source and LLM tokenizers, and what else it takes to write a TALL's inputs.

    A text is text: `</s>` or `>>fra<<` inside it is read as it is written, not as a special token (where the vocabulary lets
    the tokenizer choose: a sentencepiece unigram one, as mBART's, has `</s>` among its pieces).

    Args:
        tokenizer: the HR→LR translator's, which reads the prefix and writes the answer; the one saved at the root.
        source_tokenizer: the LR→HR translator's.
        llm_tokenizer: the LLM's. Without a padding token it pads with its end-of-text token.
        decoder_start_token_ids: what the HR→LR decoder starts every text with, such as `[</s>, language]` for NLLB.
        source_lang: code of the low-resource language, for tokenizers that want one.
        pivot_lang: code of the high-resource language; a multi-target OPUS-MT translator reads it before the text.
        max_source_length: longest source sentence in tokens; its end is kept.
        max_translation_length: longest translation in the LLM's tokens; its end is kept.
        max_target_length: longest target text in tokens, continuation included.
        reserved_target_length: how many of those stay free for the continuation (at most half).
    """

    def __init__(
        self,
        tokenizer=None,
        source_tokenizer=None,
        llm_tokenizer=None,
        decoder_start_token_ids: list[int] | None = None,
        source_lang: str | None = None,
        pivot_lang: str | None = None,
        max_source_length: int | None = None,
        max_translation_length: int | None = None,
        max_target_length: int | None = None,
        reserved_target_length: int = 32,
        chat_template: str | None = None,
    ):
        super().__init__(tokenizer, source_tokenizer, llm_tokenizer, chat_template=chat_template)
        if not decoder_start_token_ids:
            if tokenizer.pad_token_id is None:
                raise ValueError(
                    "Pass `decoder_start_token_ids`: the target tokenizer has no padding token to start from."
                )
            decoder_start_token_ids = [tokenizer.pad_token_id]  # as Marian does
        self.decoder_start_token_ids = list(decoder_start_token_ids)
        self.source_lang = source_lang
        self.pivot_lang = pivot_lang
        self.max_source_length = max_source_length
        self.max_translation_length = max_translation_length
        self.max_target_length = max_target_length
        self.reserved_target_length = reserved_target_length
        self._word_pieces = {}

        for one in (self.tokenizer, self.source_tokenizer, self.llm_tokenizer):
            without_code(one)
        for one in (self.source_tokenizer, self.llm_tokenizer):
            ensure_padding(one)
            # The next word depends most on the last ones.
            one.truncation_side = "left"
        if source_lang is not None and hasattr(self.source_tokenizer, "src_lang"):
            self.source_tokenizer.src_lang = source_lang
        if source_lang is not None and hasattr(self.tokenizer, "tgt_lang"):
            self.tokenizer.tgt_lang = source_lang

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers, without code of the tokenizers' own.

        Raises:
            OSError: for a folder that lacks a tokenizer, where transformers takes another for it.
        """
        # Trusting this model is not trusting what a part's tokenizer names, which may lie in another repository.
        kwargs["trust_remote_code"] = False
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        folder = Path(pretrained_model_name_or_path)
        parts = ("processor_config.json", "source_tokenizer", "llm_tokenizer")
        missing = [name for name in parts if folder.is_dir() and not (folder / name).exists()]
        if missing:
            raise OSError(
                f"{folder} is not a whole TALLProcessor: {', '.join(missing)} is missing. Save it again with "
                "`processor.save_pretrained(folder)`."
            )
        return processor

    @property
    def model_input_names(self) -> list[str]:
        return [
            "input_ids",
            "attention_mask",
            "llm_input_ids",
            "llm_attention_mask",
            "decoder_input_ids",
            "decoder_attention_mask",
        ]

    def __call__(
        self,
        text: str | list[str] | None = None,
        translations: str | list[str] | None = None,
        **kwargs: Unpack[ProcessingKwargs],
    ) -> BatchFeature:
        """Make a model's inputs from unfinished sentences and their translations.

        Args:
            text: sentences of the low-resource language, without the word to predict.
            translations: one translation of each, as `model.translate(text, processor)` gives them.
            text_target: for training, the whole sentences; the collator makes the decoder's inputs and labels of them.
            reserved_target_length: how many positions the prefix leaves free, instead of the processor's own number.
            return_tensors: "pt" for padded tensors (source and translation on the right, the target prefix on the left,
                where generation needs it); None for lists of unpadded rows.

        Returns:
            `input_ids`, `llm_input_ids`, `decoder_input_ids` and their attention masks, each (batch, its length); with
            `text_target`, unpadded rows with `labels`, the whole target, in place of `decoder_input_ids`.

        Raises:
            ValueError: for missing translations, numbers of texts that differ, tensors asked for training rows, or a text
                with half of a surrogate pair.
            TypeError: for anything that is not text.
        """
        options = {**kwargs.pop("text_kwargs", {}), **kwargs}
        return_tensors, text_target = options.pop("return_tensors", None), options.pop("text_target", None)
        reserved_target_length = options.pop("reserved_target_length", self.reserved_target_length)
        if options:
            raise TypeError(
                f"Unknown argument {', '.join(map(repr, options))}. Beside text and translations, a TALLProcessor takes "
                "`text_target`, `reserved_target_length` and `return_tensors`; it pads and truncates by itself."
            )
        texts = check_texts(text)
        if translations is None:
            raise ValueError(
                "`translations` are missing. A TALL reads the sentence and its translation: pass "
                "`translations=model.translate(text, processor)`."
            )
        translations = check_texts(translations)
        targets = None if text_target is None else check_texts(text_target)
        for name, others in (("translations", translations), ("target texts", targets)):
            if others is not None and len(others) != len(texts):
                raise ValueError(f"Got {len(others)} {name} for {len(texts)} texts; pass one for each text.")
        if targets is not None and return_tensors is not None:
            raise ValueError(
                "Training rows are padded by the collator: leave out `return_tensors` with `text_target`."
            )
        rows = {"input_ids": self._source_rows(texts), "llm_input_ids": self._translation_rows(translations)}
        if targets is not None:
            return BatchFeature({**rows, "labels": self.encode_target(targets)})
        rows["decoder_input_ids"] = self._prefix_rows(texts, reserved_target_length)
        if return_tensors is None:
            masks = {
                name.replace("input_ids", "attention_mask"): [[1] * len(row) for row in part]
                for name, part in rows.items()
            }
            return BatchFeature({**rows, **masks})
        padding = {
            "input_ids": (self.source_tokenizer.pad_token_id, "right"),
            "llm_input_ids": (self.llm_tokenizer.pad_token_id, "right"),
            "decoder_input_ids": (self.decoder_start_token_ids[0], "left"),
        }
        data = {}
        for name, part in rows.items():
            data[name], data[name.replace("input_ids", "attention_mask")] = pad_rows(part, *padding[name])
        return BatchFeature(data, tensor_type=return_tensors)

    def encode_source(self, texts: str | list[str], return_tensors: str | None = None) -> BatchFeature:
        """`input_ids` and `attention_mask` for the LR→HR translator alone, padded on the right if tensors are asked."""
        rows = self._source_rows(check_texts(texts))
        if return_tensors is None:
            return BatchFeature({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
        input_ids, attention_mask = pad_rows(rows, self.source_tokenizer.pad_token_id, "right")
        return BatchFeature({"input_ids": input_ids, "attention_mask": attention_mask}, tensor_type=return_tensors)

    def encode_target(self, texts: str | list[str]) -> list[list[int]]:
        """Token ids of target texts as the HR→LR decoder writes them, without start and end tokens."""
        texts = as_text(self.tokenizer, check_texts(texts))
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return self.tokenizer(text_target=texts, **options)["input_ids"] if texts else []

    def decode_target(self, ids) -> str:
        """Text of one row of target token ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def decode_translations(self, ids) -> list[str]:
        """Texts of what the LR→HR translator generated."""
        return self.source_tokenizer.batch_decode(ids, skip_special_tokens=True)

    def word_pieces(self, vocab_size: int | None = None) -> tuple[torch.BoolTensor, torch.BoolTensor]:
        """Which target tokens begin a word, and which continue one; special and unused ids do neither.

        Args:
            vocab_size: width of the model's logits, which may exceed the tokenizer's vocabulary, its default.

        Returns:
            Two masks of shape (vocab_size,).
        """
        if vocab_size not in self._word_pieces:
            self._word_pieces[vocab_size] = word_pieces(self.tokenizer, vocab_size)
        return self._word_pieces[vocab_size]

    def _source_rows(self, texts):
        code = self.source_tokenizer.get_vocab().get(f">>{self.pivot_lang}<<")
        front = [] if self.pivot_lang is None or code is None else [code]
        # The code is put in front of what was cut: a long sentence keeps its end, and it.
        longest = None if self.max_source_length is None else self.max_source_length - len(front)
        texts = as_text(self.source_tokenizer, texts)
        return [front + row for row in token_rows(self.source_tokenizer, texts, longest, "source sentence")]

    def _translation_rows(self, translations):
        rows = token_rows(self.llm_tokenizer, translations, self.max_translation_length, "translation")
        # An empty translation still needs a position for the LLM to think at.
        filler = self.llm_tokenizer.bos_token_id
        filler = self.llm_tokenizer.pad_token_id if filler is None else filler
        return [row or [filler] for row in rows]

    def _prefix_rows(self, texts, reserved_target_length):
        rows = self.encode_target(texts)
        if self.max_target_length is not None:
            start_length = len(self.decoder_start_token_ids)
            reserved = min(reserved_target_length, self.max_target_length // 2)
            longest = self.max_target_length - reserved - start_length
            warn_if_longer(rows, longest, "target prefix")
            rows = [row[max(0, len(row) - longest) :] for row in rows]
        return [self.decoder_start_token_ids + row for row in rows]


TALLProcessor.register_for_auto_class("AutoProcessor")
