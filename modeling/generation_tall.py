"""TALLTextMixin: what a TALL does from text to text - translate, the next words with probabilities, completion."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer
from transformers.generation import BaseStreamer
from transformers.modeling_outputs import BaseModelOutput

from .frozen_parts_tall import inference
from .text_rows_tall import check_texts
from .words_tall import search_words


if TYPE_CHECKING:
    from .processing_tall import TALLProcessor

# Whatever the settings say that were saved with a model.
_ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False}
_NOT_FOR_COMPLETE = {*_ONE_TEXT, "generation_config", "stopping_criteria", "max_length"}


class WordCountCriteria(StoppingCriteria):
    """Stops a row once it has begun one more word than asked for, which is when the last word asked for is whole."""

    def __init__(self, word_starts: torch.Tensor, prefix_length: int, num_words: int):
        self.word_starts = word_starts
        self.prefix_length = prefix_length
        self.num_words = num_words

    def __call__(self, input_ids, scores, **kwargs):
        begun = self.word_starts[input_ids[:, self.prefix_length :]].sum(dim=1)
        return begun > self.num_words


class AnswerStreamer(BaseStreamer):
    """What `generate` streams to while `complete` answers: hands a TextStreamer the answer, word by word.

    `generate` goes on to the token that begins one word too many. So a word is handed on when the next one begins, and
    what has been handed on is the beginning of the answer at any time.
    """

    def __init__(self, streamer: TextStreamer, text: str):
        self.streamer = streamer
        self.written = text.rstrip()
        if not streamer.skip_prompt:
            streamer.on_finalized_text(self.written)

    def follow(self, word_starts: torch.BoolTensor, read: Callable[[torch.LongTensor], str]):
        """Prepare for a call of `generate`; `read` gives the whole text that its new tokens make."""
        self.word_starts, self.read, self.tokens = word_starts, read, None

    def put(self, value):
        if self.tokens is None:  # the first tokens are the prompt
            self.tokens = []
            return
        for token in value.flatten().tolist():
            if self.word_starts[token] and self.tokens:
                # Where nothing was added, the text still has the spaces behind it.
                self.write(self.read(torch.tensor(self.tokens)).rstrip())
            self.tokens.append(token)

    def write(self, text: str):
        """Hand on what `text` has more than was handed on before."""
        if len(text) > len(self.written):
            self.streamer.on_finalized_text(text[len(self.written) :])
            self.written = text

    def end(self):
        """Called by each `generate`; the answer may take several, so `complete` closes the stream."""

    def close(self):
        self.streamer.on_finalized_text("", stream_end=True)


class TALLTextMixin:
    """Text in, text out, for TALLForCausalLM; every method takes the model's TALLProcessor."""

    @inference
    def translate(self, texts: str | list[str], processor: "TALLProcessor", **generation_kwargs) -> list[str]:
        """Translate with the whole frozen LR→HR translator, under its own generation settings.

        Args:
            texts: sentences of the low-resource language.
            processor: the model's processor.
            generation_kwargs: for the translator's `generate`, such as `num_beams`.

        Returns:
            One translation a text; the empty string for a text without any word.

        Raises:
            TypeError: for anything that is not text, or settings with which `generate` gives other than one text for each.
            ValueError: for half of a surrogate pair in a text.
        """
        texts = check_texts(texts)
        _refuse(generation_kwargs, _ONE_TEXT, "translate", "`encoder.translator.generate`")
        spoken = [i for i, text in enumerate(texts) if text.strip()]
        translations = [""] * len(texts)
        if spoken:
            inputs = processor.encode_source([texts[i] for i in spoken], return_tensors="pt").to(self.device)
            ids = self.encoder.translator.generate(**inputs, **{**_ONE_TEXT, **generation_kwargs})
            for i, translation in zip(spoken, processor.decode_translations(ids), strict=True):
                translations[i] = translation
        return translations

    @inference
    def next_words(
        self,
        texts: str | list[str],
        processor: "TALLProcessor",
        top_k: int = 5,
        translations: list[str] | None = None,
        num_beams: int | None = None,
        max_word_tokens: int = 12,
        encoder_outputs: BaseModelOutput | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Find the most probable next words of each text, by beams over a word's tokens.

        A word ends where the tokenizer begins the next one, or the sentence ends. Probabilities are those of the word
        given that the text goes on with a new word; spellings of one word by different tokens are added up, and so are
        a word and the same word with a '.' or ',' behind it. Improbable beams are given up, as long as all that a text has given
        up is together less probable than 0.0001.

        Args:
            texts: unfinished sentences of the low-resource language; an empty one asks for first words.
            processor: the model's processor.
            top_k: how many words to return at most.
            translations: ready translations of `texts`; made by `translate` when not given.
            num_beams: how many unfinished words are followed at a time; `max(16, 2 * top_k)` when not given.
            max_word_tokens: words of more tokens are not considered.
            encoder_outputs: what `encoder` made of `texts` and `translations`, if it is at hand.

        Returns:
            For each text its words, each with its probability in (0, 1], the most probable first.

        Raises:
            ValueError: a count that is none or below 1, not as many translations as texts, or half of a surrogate pair in one.
            TypeError: for anything that is not text.
        """
        texts = check_texts(texts)
        _check_count("top_k", top_k)
        _check_count("max_word_tokens", max_word_tokens)
        if num_beams is not None:
            _check_count("num_beams", num_beams)
        if not texts:
            return []
        translations = self.translate(texts, processor) if translations is None else translations
        inputs = processor(text=texts, translations=translations, return_tensors="pt").to(self.device)
        vocabulary = self.final_logits_bias.shape[-1]
        num_beams = min(num_beams or max(16, 2 * top_k), vocabulary)

        outputs = self(**inputs, encoder_outputs=encoder_outputs, use_cache=True, logits_to_keep=1)
        cache, decoder_mask = outputs.past_key_values, inputs["decoder_attention_mask"]
        encoded, llm_mask = outputs.encoder_last_hidden_state, inputs["llm_attention_mask"]

        def step(tokens, parents):
            nonlocal encoded, llm_mask, decoder_mask
            cache.reorder_cache(parents)
            encoded, llm_mask, decoder_mask = encoded[parents], llm_mask[parents], decoder_mask[parents]
            decoder_mask = torch.cat([decoder_mask, decoder_mask.new_ones(len(tokens), 1)], dim=1)
            return self(
                encoder_outputs=(encoded,),
                llm_attention_mask=llm_mask,
                decoder_input_ids=tokens.unsqueeze(1),
                decoder_attention_mask=decoder_mask,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]

        room = self.config.max_target_length - decoder_mask.shape[1]
        found = search_words(
            outputs.logits[:, -1],
            step,
            *processor.word_pieces(vocabulary),
            decode=processor.decode_target,
            num_beams=num_beams,
            max_word_tokens=min(max_word_tokens, room),
        )
        return [words[:top_k] for words in found]

    @inference
    def complete(
        self,
        texts: str | list[str],
        processor: "TALLProcessor",
        max_words: int = 10,
        refresh_words: int = 0,
        translations: list[str] | None = None,
        streamer: TextStreamer | None = None,
        **generation_kwargs,
    ) -> list[str]:
        """Continue each text by up to `max_words` words, or to the end of its sentence.

        Args:
            texts: unfinished sentences of the low-resource language.
            processor: the model's processor.
            max_words: how many words to add at most.
            refresh_words: read and translate the grown text again after every so many words; 1 is the loop of the
                paper, 0 reads and translates once.
            translations: ready translations of `texts` for the first reading; made by `translate` when not given.
            streamer: for one text, gets the answer word by word: transformers' TextStreamer prints it, and over a
                TextIteratorStreamer one can iterate. The pieces joined are the answer; with `skip_prompt=True`, what
                stands in it behind the text. Pieces are text already, so the streamer's own tokenizer is not used.
            generation_kwargs: for `generate`; greedy unless `do_sample=True`.

        Returns:
            Each text with its continuation.

        Raises:
            ValueError: for counts that are none or negative, half of a surrogate pair in a text, or a streamer with more or fewer than one text
                or with beams.
            TypeError: for a streamer of tokens, or what only `generate` takes.
        """
        texts = check_texts(texts)
        _check_count("max_words", max_words, least=0)
        _check_count("refresh_words", refresh_words, least=0)
        if generation_kwargs.get("max_new_tokens") is not None:
            _check_count("max_new_tokens", generation_kwargs["max_new_tokens"])
        _refuse(generation_kwargs, _NOT_FOR_COMPLETE, "complete", "`generate`")
        if streamer is None:
            return self._complete(texts, processor, max_words, refresh_words, translations, generation_kwargs)
        if not isinstance(streamer, TextStreamer):
            raise TypeError(
                f"`streamer` must be a TextStreamer or TextIteratorStreamer of transformers, got "
                f"{type(streamer).__name__}; `generate` takes streamers of tokens."
            )
        if len(texts) != 1:
            raise ValueError(f"A `streamer` takes one text, got {len(texts)}; call `complete` for each.")
        answer_streamer = AnswerStreamer(streamer, texts[0])
        try:
            settings = {**generation_kwargs, "streamer": answer_streamer}
            return self._complete(texts, processor, max_words, refresh_words, translations, settings)
        finally:
            # Also after an error: somebody may be waiting for the next piece in another thread.
            answer_streamer.close()

    def _complete(self, texts, processor, max_words, refresh_words, translations, generation_kwargs):
        streamer = generation_kwargs.get("streamer")
        unfinished, words_left = list(range(len(texts))), max_words
        while unfinished and words_left > 0:
            num_words = min(refresh_words or max_words, words_left)
            batch = [texts[i] for i in unfinished]
            if translations is None:
                translations = self.translate(batch, processor)
            continuations = self._generate_words(batch, translations, processor, num_words, generation_kwargs)
            still_unfinished = []
            for i, (continued, ended) in zip(unfinished, continuations, strict=True):
                grown = continued != texts[i]
                texts[i] = continued
                if grown and not ended:
                    still_unfinished.append(i)
            unfinished, words_left, translations = still_unfinished, words_left - num_words, None
            if streamer is not None:
                streamer.write(texts[0])
        return texts

    def _generate_words(self, texts, translations, processor, num_words, generation_kwargs):
        """Continue by at most `num_words` words; (text with continuation, whether the sentence ended) a text."""
        # As much room for every row, so that a row's continuation does not depend on its batch.
        max_new_tokens = generation_kwargs.get("max_new_tokens") or 16 * num_words
        max_new_tokens = min(max_new_tokens, self.config.max_target_length // 2)
        inputs = processor(
            text=texts, translations=translations, reserved_target_length=max_new_tokens, return_tensors="pt"
        ).to(self.device)
        prefix_length = inputs["decoder_input_ids"].shape[1]
        starts, continuations = (
            mask.to(self.device) for mask in processor.word_pieces(self.final_logits_bias.shape[-1])
        )
        generation_kwargs = {"do_sample": False, **_ONE_TEXT, **generation_kwargs, "max_new_tokens": max_new_tokens}

        def read(text, row):
            text_pieces = starts[row] | continuations[row]
            row = row[: int(text_pieces.long().cumprod(dim=0).sum())]  # up to the end of the sentence
            begun = starts[row].cumsum(dim=0)
            # A row that was stopped at its next word is filled up with padding, which is no end of a sentence.
            ended = len(row) < len(text_pieces) and bool((begun <= num_words).all())
            row = row[begun <= num_words]
            addition = processor.decode_target(row)
            glued = len(row) > 0 and not bool(starts[row[0]])
            space = "" if glued or not text.strip() or not addition else " "
            return text.rstrip() + space + addition if addition else text, ended

        if streamer := generation_kwargs.get("streamer"):
            streamer.follow(starts, lambda row: read(texts[0], row.to(self.device))[0])
        ids = self.generate(
            **inputs,
            stopping_criteria=StoppingCriteriaList([WordCountCriteria(starts, prefix_length, num_words)]),
            **generation_kwargs,
        )
        return [read(text, row) for text, row in zip(texts, ids[:, prefix_length:], strict=True)]


def _check_count(name, count, least=1):
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}, got {count!r}.")


def _refuse(settings, refused, method, instead):
    """TypeError for settings of `generate` with which it does not give one text for each."""
    if found := sorted(set(settings) & set(refused)):
        raise TypeError(
            f"`{method}` gives one text for each and does not take {', '.join(map(repr, found))}; call {instead} for that."
        )
