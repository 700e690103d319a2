"""Naive translation, what TALL is compared with: the LLM adds a word to the translation, and all is translated back.

The words are those of `tall_hf.evaluation.approaches.naive` under the protocol "clean", by torch and transformers alone.
"""

import copy
import importlib
import unicodedata
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM


# A translator likes to end what it translates, and no word goes on behind a full stop.
_SENTENCE_END = " .!?…"
_MAX_WORD_TOKENS = 24


@dataclass(frozen=True)
class NaiveWord:
    """A word that came back: `english`, of that `probability`, stood behind the translation, and `sentence` came of it."""

    word: str
    english: str
    probability: float
    sentence: str


class NaiveTranslation:
    """What the frozen parts of a TALL say without it.

    The LLM is the TALL's own where that has the whole of it; the HR→LR translator, of which a TALL has the decoder only, is
    loaded from where the TALL was composed from.

    Args:
        model, processor: a TALL.

    Raises:
        OSError, ValueError: a part cannot be loaded.
    """

    def __init__(self, model, processor):
        # A model without a record of its parts has nowhere to load the translator from.
        if not model.config.components:
            raise ValueError("this model's config does not say which translators it was composed from")
        self.processor = processor
        self.llm = _language_model(model)
        self.translator = _load(AutoModelForSeq2SeqLM, model.config.components["hr_lr"]).to(model.device)
        self.tokenizer = copy.deepcopy(processor.tokenizer)  # here it reads, in the TALL it writes
        self.tokenizer.truncation_side = "left"
        if processor.pivot_lang is not None and hasattr(self.tokenizer, "src_lang"):
            self.tokenizer.src_lang = processor.pivot_lang
        code = self.tokenizer.get_vocab().get(f">>{processor.source_lang}<<")
        self.front = [] if code is None else [code]
        # How texts are read and words are searched for is the TALL's own code, from the package or from the Hub.
        package = type(model).__module__.rpartition(".")[0]
        self.as_text = importlib.import_module(".text_rows_tall", package).as_text
        words_tall = importlib.import_module(".words_tall", package)
        self.search_words = words_tall.search_words
        self.vocab_size = self.llm.get_output_embeddings().weight.shape[0]
        self.word_pieces = words_tall.word_pieces(processor.llm_tokenizer, self.vocab_size)

    @torch.inference_mode()
    def next_words(self, translation: str, top_k: int = 5) -> list[NaiveWord]:
        """What comes back of the LLM's `top_k` most probable next words, in that order, each word once."""
        text = translation.rstrip(_SENTENCE_END)
        added = self._continue(text, top_k)
        returned = self._translate_back([f"{text} {english}".strip() for english, _ in added])
        found = {}
        for (english, probability), sentence in zip(added, returned, strict=True):
            if word := _last_word(sentence):
                found.setdefault(word, NaiveWord(word, english, probability, sentence))
        return list(found.values())

    def _continue(self, text, top_k) -> list[tuple[str, float]]:
        tokenizer = self.processor.llm_tokenizer
        # As the TALL reads it: what looks like a special token in a text is text.
        ids = tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
        if not ids:  # an empty text still is one token
            ids = [tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id]
        max_length = getattr(self.llm.config.get_text_config(), "max_position_embeddings", None)
        if max_length is not None:
            ids = ids[-max(1, max_length - _MAX_WORD_TOKENS) :]
        # A position in place of a count, for which the head would copy its weights: see `last_positions` of the model's code.
        last = torch.tensor([len(ids) - 1], device=self.llm.device)
        outputs = self.llm(input_ids=torch.tensor([ids], device=self.llm.device), use_cache=True, logits_to_keep=last)
        cache = outputs.past_key_values

        def step(tokens, parents):
            cache.reorder_cache(parents)
            return self.llm(input_ids=tokens.unsqueeze(1), past_key_values=cache, use_cache=True).logits[:, -1]

        [words] = self.search_words(
            outputs.logits[:, -1],
            step,
            *self.word_pieces,
            decode=self._decode_word,
            num_beams=min(max(16, 2 * top_k), self.vocab_size),
            max_word_tokens=_MAX_WORD_TOKENS,
        )
        return words[:top_k]

    def _decode_word(self, tokens):
        word = self.processor.llm_tokenizer.decode(tokens, skip_special_tokens=True).strip()
        # Byte-level tokens may end within a character.
        return "" if "\ufffd" in word else word

    def _translate_back(self, sentences):
        if not sentences:
            return []
        inputs = self.tokenizer(
            self.as_text(self.tokenizer, sentences),
            split_special_tokens=True,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self.translator.config.max_position_embeddings - len(self.front),
        )
        # The code is put in front of what was cut: a long sentence keeps its end, and it.
        front = torch.tensor([self.front] * len(sentences), dtype=torch.long)
        device = self.translator.device
        ids = torch.cat([front, inputs["input_ids"]], dim=1).to(device)
        mask = torch.cat([torch.ones_like(front), inputs["attention_mask"]], dim=1).to(device)
        start, *language = self.processor.decoder_start_token_ids
        forced = {"forced_bos_token_id": language[0]} if language else {}
        ids = self.translator.generate(input_ids=ids, attention_mask=mask, decoder_start_token_id=start, **forced)
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)


def _language_model(model):
    """The LLM with its head, around the TALL's own weights if these are all of it and as they were."""
    config, component = model.config.llm_config, model.config.components["llm"]
    tied = config.get_text_config().tie_word_embeddings
    if not tied or {"merged_lora", "unfrozen"} & set(component) or not config.get_text_config().num_hidden_layers:
        return _load(AutoModelForCausalLM, component).to(model.device)
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    setattr(llm, llm.base_model_prefix, model.encoder.llm)
    llm.tie_weights()
    return llm.eval()


def _load(auto_class, component):
    options = {"revision": component["revision"] or "main", "use_safetensors": True, "trust_remote_code": False}
    return auto_class.from_pretrained(component["name_or_path"], **options).eval()


def _last_word(sentence):
    """The last token that has a letter or a digit, without the punctuation around it; empty if there is none."""
    for token in reversed(sentence.split()):
        categories = [unicodedata.category(char) for char in token]
        kept = [i for i, category in enumerate(categories) if category[0] != "P" and category != "Sk"]
        if any(category[0] in "LN" for category in categories):
            return token[kept[0] : kept[-1] + 1]
    return ""
