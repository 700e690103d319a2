"""LayerFusionProcessor: the encoder's and the LLM's tokenizers, from text and a prompt to the model's inputs."""

import contextlib

from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs, Unpack

from .text_rows_tall import as_text, check_texts, ensure_padding, pad_rows, token_rows, without_code


class LayerFusionProcessor(ProcessorMixin):
    """The tokenizers of a LayerFusionForCausalLM, and the order of what its LLM reads.

    Sources and answers are text: `</s>` inside one is read as it is written, not as a special token (but where the vocabulary
    leaves no choice, as for TALLProcessor). Prompts are their author's own: special tokens in them are read as such, as
    chat templates need it, unless the source is repeated in front.

    Args:
        tokenizer: the LLM's, which reads prompts and writes answers; the one saved at the root. Without a padding token it
            pads with its end-of-text token.
        source_tokenizer: the encoder's.
        source_lang: code of the source's language, for encoders that want one (NLLB, mBART); a call may name another.
        max_source_length: longest source in tokens; its beginning is kept (200 in the paper).
        repeat_source: let the LLM read the source in its own tokens too, in front of the prompt (MindMerger's second stage).
    """

    def __init__(
        self,
        tokenizer=None,
        source_tokenizer=None,
        source_lang: str | None = None,
        max_source_length: int | None = 200,
        repeat_source: bool = False,
        chat_template: str | None = None,
    ):
        super().__init__(tokenizer, source_tokenizer, chat_template=chat_template)
        self.source_lang = source_lang
        self.max_source_length = max_source_length
        self.repeat_source = repeat_source
        for one in (self.tokenizer, self.source_tokenizer):
            without_code(one)
            ensure_padding(one)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers, without code of the tokenizers' own."""
        # Trusting this model is not trusting what a part's tokenizer names, which may lie in another repository.
        kwargs["trust_remote_code"] = False
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "mm_token_type_ids", "source_input_ids", "source_attention_mask"]

    def __call__(
        self,
        text: str | list[str] | None = None,
        prompt: str | list[str] | None = None,
        **kwargs: Unpack[ProcessingKwargs],
    ) -> BatchFeature:
        """Make a model's inputs from sources and what the LLM is asked about them.

        Args:
            text: sources, in any language the encoder knows.
            prompt: what the LLM reads behind a source, one for all or one for each; nothing when not given.
            text_target: answers, one for each source, that the LLM is to write behind the prompt: with an end-of-text token
                they become `labels`.
            source_lang: code of the sources' language, instead of the processor's own.
            return_tensors: "pt" for padded tensors (sources on the right, the LLM's rows on the left); None for lists of
                unpadded rows.

        Returns:
            `source_input_ids` and `source_attention_mask`, (batch, source length); `input_ids`, `attention_mask` and
            `mm_token_type_ids`, (batch, length), with a place for each source token and for the end vector; with
            `text_target`, `labels` as long as `input_ids`.

        Raises:
            ValueError: for numbers of texts that differ, a text with half of a surrogate pair, or no language where the
                encoder's tokenizer wants to know which one it reads.
            TypeError: for anything that is not text, or an unknown argument.
        """
        options = {**kwargs.pop("text_kwargs", {}), **kwargs}
        return_tensors, text_target = options.pop("return_tensors", None), options.pop("text_target", None)
        source_lang = options.pop("source_lang", self.source_lang)
        if options:
            raise TypeError(
                f"Unknown argument {', '.join(map(repr, options))}. Beside text and prompt, a LayerFusionProcessor takes "
                "`text_target`, `source_lang` and `return_tensors`; it pads and truncates by itself."
            )
        if source_lang is None and hasattr(self.source_tokenizer, "src_lang"):
            # It would read the language of its last call, or of where it was saved.
            raise ValueError(
                f"The encoder's tokenizer ({type(self.source_tokenizer).__name__}) wants the code of the language it reads: "
                "pass `source_lang`, such as 'eng_Latn' for NLLB, or compose the model with one."
            )
        texts = check_texts(text)
        prompts = (
            check_texts(prompt or "") * len(texts)
            if prompt is None or isinstance(prompt, str)
            else check_texts(prompt)
        )
        answers = None if text_target is None else check_texts(text_target)
        for name, others in (("prompts", prompts), ("answers", answers)):
            if others is not None and len(others) != len(texts):
                raise ValueError(f"Got {len(others)} {name} for {len(texts)} texts; pass one for each text.")
        if self.repeat_source:
            prompts = [f"{self._cut(text)} {prompt}".strip() for text, prompt in zip(texts, prompts, strict=True)]
        with self.reading(source_lang):
            read = as_text(self.source_tokenizer, texts)
            sources = token_rows(self.source_tokenizer, read, self.max_source_length, "source")
        prompts = self._encode(prompts, split_special_tokens=self.repeat_source)  # what is repeated is text
        answers = None if answers is None else self.encode_answers(answers)
        rows = [self._row(len(source), prompt) for source, prompt in zip(sources, prompts, strict=True)]
        data = {
            "source_input_ids": sources,
            "input_ids": rows,
            "mm_token_type_ids": [
                self._types(len(source), len(row)) for source, row in zip(sources, rows, strict=True)
            ],
        }
        if answers is not None:
            data["input_ids"] = [row + answer for row, answer in zip(rows, answers, strict=True)]
            data["mm_token_type_ids"] = [
                types + [0] * len(answer) for types, answer in zip(data["mm_token_type_ids"], answers, strict=True)
            ]
            data["labels"] = [[-100] * len(row) + answer for row, answer in zip(rows, answers, strict=True)]
        return (
            self.pad(data, return_tensors)
            if return_tensors is not None
            else BatchFeature(
                data
                | {
                    "attention_mask": [[1] * len(row) for row in data["input_ids"]],
                    "source_attention_mask": [[1] * len(row) for row in sources],
                }
            )
        )

    def encode_answers(self, answers: list[str]) -> list[list[int]]:
        """Token ids of answers as `labels` hold them: an end-of-text token behind, if any, and no other special token."""
        return [row + self._end for row in self._encode(answers, split_special_tokens=True)]

    def pad(self, rows: dict[str, list[list[int]]], return_tensors: str = "pt") -> BatchFeature:
        """Pad rows as a call makes them: sources on the right, the LLM's rows on the left, where generation needs it."""
        data = {}
        padding = self.source_tokenizer.pad_token_id
        data["source_input_ids"], data["source_attention_mask"] = pad_rows(rows["source_input_ids"], padding, "right")
        data["input_ids"], data["attention_mask"] = pad_rows(rows["input_ids"], self.tokenizer.pad_token_id, "left")
        data["mm_token_type_ids"], _ = pad_rows(rows["mm_token_type_ids"], 0, "left")
        if "labels" in rows:
            data["labels"], _ = pad_rows(rows["labels"], -100, "left")
        return BatchFeature(data, tensor_type=return_tensors)

    @contextlib.contextmanager
    def reading(self, source_lang: str | None):
        """Within, the encoder's tokenizer reads this language, if it wants to know which; None leaves it as it is."""
        is_told = source_lang is not None and hasattr(self.source_tokenizer, "src_lang")
        before = self.source_tokenizer.src_lang if is_told else None
        if is_told:
            self.source_tokenizer.src_lang = source_lang
        try:
            yield
        finally:
            if is_told:
                self.source_tokenizer.src_lang = before

    def _cut(self, text: str) -> str:
        """What the LLM reads of a source in its own tokens: no more of them than the encoder reads."""
        ids = self._encode([text], split_special_tokens=True)[0]
        if self.max_source_length is None or len(ids) <= self.max_source_length:
            return text
        return self.tokenizer.decode(ids[: self.max_source_length])

    @property
    def _begin(self) -> list[int]:
        return [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    @property
    def _end(self) -> list[int]:
        return [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]

    def _encode(self, texts: list[str], split_special_tokens: bool = False) -> list[list[int]]:
        options = {"add_special_tokens": False, "split_special_tokens": split_special_tokens, "verbose": False}
        return self.tokenizer(texts, **options)["input_ids"] if texts else []

    def _row(self, source_length: int, prompt: list[int]) -> list[int]:
        """Beginning of text, a place for each vector of the source, and the prompt."""
        return self._begin + [self.tokenizer.pad_token_id] * (source_length + 1) + prompt

    def _types(self, source_length: int, length: int) -> list[int]:
        before, places = len(self._begin), source_length + 1
        return [0] * before + [1] * places + [0] * (length - before - places)


LayerFusionProcessor.register_for_auto_class("AutoProcessor")
