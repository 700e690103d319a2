"""Translation by CTranslate2 (the extra `ct2`), which is faster than transformers and rounds."""

import tempfile
from collections.abc import Callable, Collection
from typing import Any

import torch
from transformers import GenerationConfig

from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor


# What CTranslate2 does as `generate` does it. The others are either its habit (`bad_words_ids` holds the padding token,
# which it never writes) or refused.
_OPTIONS = {
    "num_beams": "beam_size",
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
}
_OWN_WAY = {
    "bad_words_ids",
    "bos_token_id",
    "decoder_start_token_id",
    "early_stopping",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "max_length",
    "max_new_tokens",
    "pad_token_id",
    "renormalize_logits",
    "use_cache",
}


def ctranslate2_backend(
    model: TALLForCausalLM,
    processor: TALLProcessor,
    compute_type: str,
    settings: GenerationConfig,
    asked: Collection[str],
) -> Callable[[list[str]], list[str]]:
    """A function from one batch of texts to their translations by a TALL's LR→HR translator, converted to CTranslate2.

    Args:
        model: the TALL; a GPU is used if it stands there.
        processor: its processor.
        compute_type: "int8", "int8_float16" on a GPU, "float32", ...
        settings: of the translation; what CTranslate2 does not know of them is the translator's own, and left aside.
        asked: which of them a user asked for; none is left aside.

    Raises:
        ImportError: CTranslate2 is not installed.
        ValueError: it cannot convert this translator, or does not know a setting that was asked for.
    """
    try:
        import ctranslate2
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise ImportError(
            "The backend 'ctranslate2' is not installed: `pip install tall-hf[ct2]`, or use the backend 'transformers'."
        ) from error
    translator, tokenizer = model.encoder.translator, processor.source_tokenizer
    options = _translation_options(settings, asked)
    start = translator.get_input_embeddings().weight[settings.decoder_start_token_id]
    if translator.config.model_type == "marian" and bool(start.any()):
        raise ValueError(
            "CTranslate2 starts every Marian translation from an embedding of zeros, as OPUS-MT's are, but the start token "
            f"({settings.decoder_start_token_id}) of this translator has another; use the backend 'transformers'."
        )
    with tempfile.TemporaryDirectory() as folder:
        # The translator of this very TALL, which may not be what a Hub id stands for today.
        translator.save_pretrained(f"{folder}/hf")
        tokenizer.save_pretrained(f"{folder}/hf")
        try:
            TransformersConverter(f"{folder}/hf").convert(f"{folder}/ct2")
        except Exception as error:
            raise ValueError(
                f"CTranslate2 cannot convert this translator ({type(translator).__name__}: {error}); use the backend "
                "'transformers'."
            ) from error
        on_gpu = model.device.type == "cuda"
        engine = ctranslate2.Translator(
            f"{folder}/ct2",
            device="cuda" if on_gpu else "cpu",
            device_index=(model.device.index or 0) if on_gpu else 0,
            compute_type=compute_type,
            intra_threads=torch.get_num_threads(),
        )
    first = settings.forced_bos_token_id
    prefix = None if first is None else tokenizer.convert_ids_to_tokens([first])

    def translate(texts: list[str]) -> list[str]:
        rows = processor.encode_source(texts)["input_ids"]
        results = engine.translate_batch(
            [tokenizer.convert_ids_to_tokens(row) for row in rows],
            target_prefix=None if prefix is None else [prefix] * len(rows),
            **options,
        )
        ids = [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
        return processor.decode_translations(ids)

    return translate


def _translation_options(settings: GenerationConfig, asked: Collection[str]) -> dict[str, Any]:
    """The arguments of CTranslate2's `translate_batch` that do what these settings do."""
    refused = set(asked) - set(_OPTIONS) - _OWN_WAY - {"do_sample"}
    if refused:
        raise ValueError(
            f"The backend 'ctranslate2' does not know {', '.join(map(repr, sorted(refused)))}; use the backend "
            "'transformers', or leave it out."
        )
    options = {
        theirs: getattr(settings, ours) for ours, theirs in _OPTIONS.items() if getattr(settings, ours) is not None
    }
    if (settings.num_beams or 1) > 1:
        # Its habit is to stop at the first finished beam, which favours short translations; `generate` looks further.
        options["patience"] = 2
    # `max_length` counts the start token, which CTranslate2 does not.
    longest = settings.max_new_tokens or (settings.max_length and settings.max_length - 1)
    if longest:
        options["max_decoding_length"] = longest
    return options
