"""The HR→LR translator as a whole, with its own settings: what naive translation comes back by."""

import torch

from tall_hf.components import decoder_start_ids
from tall_hf.fingerprints import model_fingerprint
from tall_hf.modeling.text_rows_tall import as_text


class BackTranslator:
    """Translate from the high-resource into the low-resource language.

    Args:
        model: the HR→LR translator: Marian (OPUS-MT), M2M100, NLLB or mBART.
        tokenizer: its tokenizer.
        source_lang: code of the low-resource language, where the translator needs one (as `compose` names them); a
            multi-target OPUS-MT translator reads it before the text.
        pivot_lang: code of the high-resource language, likewise.
    """

    def __init__(self, model, tokenizer, source_lang: str | None = None, pivot_lang: str | None = None):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.languages = {"source_lang": source_lang, "pivot_lang": pivot_lang}
        if pivot_lang is not None and hasattr(tokenizer, "src_lang"):
            tokenizer.src_lang = pivot_lang
        tokenizer.truncation_side = "left"  # the last word is what matters
        code = tokenizer.get_vocab().get(f">>{source_lang}<<")
        self._front = [] if source_lang is None or code is None else [code]
        start, *language = decoder_start_ids(model, tokenizer, source_lang)
        self._start = {"decoder_start_token_id": start}
        if language:
            self._start["forced_bos_token_id"] = language[0]

    def fingerprint(self) -> str:
        return model_fingerprint(self.model, self.tokenizer)

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> list[str]:
        """One translation a text; the empty string for a text without any word."""
        spoken = [i for i, text in enumerate(texts) if text.strip()]
        translations = [""] * len(texts)
        if spoken:
            inputs = self.tokenizer(
                as_text(self.tokenizer, [texts[i] for i in spoken]),
                split_special_tokens=True,
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=self.model.config.max_position_embeddings - len(self._front),
            )
            # The code is put in front of what was cut: a long text keeps its end, and it.
            front = torch.tensor([self._front] * len(spoken), dtype=torch.long)
            ids = torch.cat([front, inputs["input_ids"]], dim=1).to(self.model.device)
            mask = torch.cat([torch.ones_like(front), inputs["attention_mask"]], dim=1).to(self.model.device)
            ids = self.model.generate(input_ids=ids, attention_mask=mask, **self._start)
            decoded = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
            for i, translation in zip(spoken, decoded, strict=True):
                translations[i] = translation
        return translations
