"""Compose a TALL from three pretrained checkpoints: Hub ids or folders, each with an optional revision."""

import contextlib
import os

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, GenerationConfig

from tall_hf.loading import Component, as_dtype, assemble, check_vocabulary, load_part, load_tokenizer
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor


# What the paper samples the next token with; at most ten new tokens for a word (section on inference).
PAPER_SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.95, "max_new_tokens": 10}

# The three parts, as `compose` calls them and `TALLConfig.components` records them.
ROLES = ("lr_hr", "llm", "hr_lr")
# The fields of TALLConfig that are a user's choice; the others describe the parts.
SWITCHES = (
    "source_bridge",
    "source_fusion",
    "alignment_type",
    "alignment_hidden_size",
    "alignment_dropout",
    "bridge_attention_heads",
    "gate_init",
    "look_ahead",
    "initializer_range",
)


def compose(
    lr_hr: str | os.PathLike,
    llm: str | os.PathLike,
    hr_lr: str | os.PathLike,
    *,
    source_bridge: str = "gated",
    source_lang: str | None = None,
    pivot_lang: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    attn_implementation: str | dict | None = None,
    device_map: str | dict | None = None,
    token: str | bool | None = None,
    allow_pickle: bool = False,
    warm_start: bool = False,
    leave_out_llm: bool = False,
    **config_switches,
) -> tuple[TALLForCausalLM, TALLProcessor]:
    """Build a TALL with pretrained frozen parts and fresh adapters.

    Args:
        lr_hr: translator from the low-resource into the high-resource language: a folder, or a Hub id with an optional
            `@revision`. Marian (OPUS-MT), M2M100, NLLB or mBART.
        llm: the language model; its head is not used.
        hr_lr: translator back into the low-resource language.
        source_bridge: of TALLConfig, whose own default is the paper's "marian"; the gated bridge is what learned best (docs/results.md).
        source_lang: code of the low-resource language, where a translator needs one (such as `heb_Hebr` for NLLB).
        pivot_lang: code of the high-resource language, likewise (`eng_Latn`).
        dtype: one dtype for all parts.
        attn_implementation: "eager" or "sdpa", or a dict by sub-config.
        device_map: where to put the model; on the CPU when not given.
        token: for private repositories.
        allow_pickle: accept a part that only has pickled weights; they are read with `weights_only`.
        warm_start: start custom encoder 2 from the HR→LR translator's own encoder, and custom decoder 1 from the LR→HR
            translator's decoder where the widths agree, instead of from noise (the paper).
        leave_out_llm: keep the LLM's token embeddings and final norm, and none of its layers: the control for what a TALL
            owes to its LLM (`tall_hf.evaluation.approaches.translator_only`).
        config_switches: further fields of TALLConfig, such as `source_fusion="global_softmax"`.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        OSError: for a part that cannot be found, or only has pickled weights.
        TypeError: for an unknown switch.
        ValueError: for parts that do not fit together.
    """
    dtype = as_dtype(dtype)
    if unknown := set(config_switches) - set(SWITCHES):
        raise TypeError(
            f"Unknown argument {', '.join(map(repr, sorted(unknown)))}. Beside its own arguments, `compose` takes the "
            f"switches of TALLConfig: {', '.join(SWITCHES)}."
        )
    specs = {"lr_hr": lr_hr, "llm": llm, "hr_lr": hr_lr}
    parts = {role: Component.resolve(spec, token) for role, spec in specs.items()}

    # Configurations and tokenizers first: whatever does not fit is said before gigabytes are read.
    part_configs = {f"{role}_config": part.load(AutoConfig, token=token) for role, part in parts.items()}
    components = {role: {"name_or_path": part.name_or_path, "revision": part.revision} for role, part in parts.items()}
    if leave_out_llm:
        _leave_out_layers(part_configs["llm_config"])
    config = TALLConfig(**part_configs, components=components, source_bridge=source_bridge, **config_switches)
    tokenizers = {role: load_tokenizer(part, token) for role, part in parts.items()}
    _check_vocabularies(parts, tokenizers, config)
    _check_source_language(tokenizers["lr_hr"], source_lang)

    models = {
        "lr_hr": load_part(parts["lr_hr"], AutoModelForSeq2SeqLM, dtype, token, allow_pickle),
        "llm": load_part(parts["llm"], AutoModel, dtype, token, allow_pickle, part_configs["llm_config"]),
        "hr_lr": load_part(parts["hr_lr"], AutoModelForSeq2SeqLM, dtype, token, allow_pickle),
    }
    config.translation_generation_config = _translation_settings(
        models["lr_hr"].generation_config, tokenizers["lr_hr"], pivot_lang
    )
    state_dict = _composed_state_dict(models, config)
    if warm_start:
        state_dict.update(_warm_start(models, config))
    model = assemble(TALLForCausalLM, config, state_dict, dtype, attn_implementation, device_map)
    start_ids = decoder_start_ids(models["hr_lr"], tokenizers["hr_lr"], source_lang)
    model.generation_config = _generation_settings(models["hr_lr"].generation_config, start_ids)
    processor = TALLProcessor(
        tokenizer=tokenizers["hr_lr"],
        source_tokenizer=tokenizers["lr_hr"],
        llm_tokenizer=tokenizers["llm"],
        decoder_start_token_ids=start_ids,
        source_lang=source_lang,
        pivot_lang=pivot_lang,
        max_source_length=config.max_source_length,
        max_translation_length=config.max_translation_length,
        max_target_length=config.max_target_length,
    )
    return model, processor


def has_llm_layers(config: TALLConfig) -> bool:
    """Whether a TALL has an LLM, not its token embeddings alone (see `leave_out_llm` of `compose`)."""
    return config.llm_config.get_text_config().num_hidden_layers > 0


def _leave_out_layers(llm_config):
    text_config = llm_config.get_text_config()
    text_config.num_hidden_layers = 0
    if getattr(text_config, "layer_types", None) is not None:
        text_config.layer_types = []


def _check_vocabularies(parts, tokenizers, config):
    sizes = {
        "lr_hr": config.lr_hr_config.vocab_size,
        "llm": config.llm_config.get_text_config().vocab_size,
        "hr_lr": getattr(config.hr_lr_config, "decoder_vocab_size", None) or config.hr_lr_config.vocab_size,
    }
    for role, size in sizes.items():
        known = getattr(tokenizers[role], "target_encoder", None) if role == "hr_lr" else None
        check_vocabulary(parts[role], tokenizers[role], size, known)


def _composed_state_dict(models, config: TALLConfig) -> dict[str, torch.Tensor]:
    """The weights of the frozen parts under their names in a TALL."""
    state_dict = {f"encoder.translator.{k}": v for k, v in models["lr_hr"].state_dict().items()}
    state_dict |= {f"encoder.llm.{k}": v for k, v in models["llm"].state_dict().items()}
    writer = models["hr_lr"]
    state_dict |= {f"decoder.{k}": v for k, v in writer.get_decoder().state_dict().items()}
    state_dict |= {f"lm_head.{k}": v for k, v in writer.get_output_embeddings().state_dict().items()}
    if hasattr(writer, "final_logits_bias"):  # M2M100 has none
        state_dict["final_logits_bias"] = writer.final_logits_bias
    if config.source_bridge in ("gated", "concat"):
        embed_tokens = models["llm"].get_input_embeddings()
        with torch.no_grad():
            # What the layer gives, not its weights: Gemma's scales them.
            embeddings = embed_tokens(torch.arange(embed_tokens.num_embeddings, device=embed_tokens.weight.device))
        state_dict["encoder.embedding_std"] = embeddings.float().std().to(embeddings.dtype).reshape(1)
    return state_dict


def check_warm_start(config: TALLConfig) -> None:
    """See that the adapters can start from the translators' own layers.

    Raises:
        ValueError: they cannot.
    """
    if config.lr_hr_config.model_type != "marian" or config.hr_lr_config.model_type != "marian":
        raise ValueError("`warm_start` needs two Marian translators: the custom transformers are Marian's.")


def _warm_start(models, config: TALLConfig) -> dict[str, torch.Tensor]:
    """Starting weights for the custom transformers, where a translator's own have the same shapes."""
    check_warm_start(config)
    state_dict = {
        f"encoder.target_encoder.{k}": v.clone()
        for k, v in models["hr_lr"].get_encoder().state_dict().items()
        if not k.startswith("embed_tokens")
    }
    same_width = config.lr_hr_config.d_model == config.llm_embedding_size
    if config.source_bridge in ("marian", "gated") and same_width:
        state_dict |= {
            f"encoder.source_decoder.{k}": v.clone()
            for k, v in models["lr_hr"].get_decoder().state_dict().items()
            if not k.startswith("embed_tokens")
        }
    return state_dict


def language_id(tokenizer, code: str) -> int:
    """The token of a language's code; ValueError if the tokenizer does not know it."""
    codes = getattr(tokenizer, "lang_code_to_id", None)
    if codes and code in codes:
        return codes[code]
    if hasattr(tokenizer, "get_lang_id"):  # M2M100
        with contextlib.suppress(KeyError):
            return tokenizer.get_lang_id(code)
    index = tokenizer.convert_tokens_to_ids(code)
    if index is None or index == tokenizer.unk_token_id:
        raise ValueError(
            f"{type(tokenizer).__name__} of {tokenizer.name_or_path} does not know the language code {code!r}. Codes look "
            "like 'heb_Hebr' for NLLB, 'he' for M2M100 and 'he_IL' for mBART-50."
        )
    return index


def needs_language(tokenizer) -> bool:
    """Whether a tokenizer writes the language of a text beside it."""
    return hasattr(tokenizer, "src_lang")


def _check_source_language(tokenizer, source_lang: str | None) -> None:
    """See that a translator of many languages is told which one it reads; its tokenizer would pass over a wrong code."""
    if not needs_language(tokenizer):
        return
    if source_lang is None:
        raise ValueError(
            f"The LR→HR translator ({type(tokenizer).__name__}) translates between many languages: pass `source_lang` and "
            "`pivot_lang`, such as 'heb_Hebr' and 'eng_Latn' for NLLB."
        )
    language_id(tokenizer, source_lang)


def _translation_settings(generation_config: GenerationConfig, tokenizer, pivot_lang) -> dict:
    settings = generation_config.to_diff_dict()
    settings.pop("transformers_version", None)
    if needs_language(tokenizer):
        if pivot_lang is not None:
            settings["forced_bos_token_id"] = language_id(tokenizer, pivot_lang)
        elif generation_config.forced_bos_token_id is None:
            raise ValueError(
                f"The LR→HR translator ({type(tokenizer).__name__}) writes many languages: pass `pivot_lang`, such as "
                "'eng_Latn' for NLLB."
            )
    return settings


def decoder_start_ids(writer, tokenizer, source_lang: str | None) -> list[int]:
    """What the HR→LR decoder reads before the first word: its start token, then its language where it has many.

    Raises:
        ValueError: it has many, and none is named.
    """
    settings = writer.generation_config
    start = settings.decoder_start_token_id
    if start is None:
        start = writer.config.decoder_start_token_id
    language = settings.forced_bos_token_id
    if needs_language(tokenizer) and source_lang is not None:
        language = language_id(tokenizer, source_lang)
        if writer.config.model_type == "mbart" and tokenizer.__class__.__name__.startswith("MBartTokenizer"):
            return [language]  # the first mBART starts with the language itself
    if needs_language(tokenizer) and language is None and start == writer.config.eos_token_id:
        raise ValueError(
            f"The HR→LR translator ({type(tokenizer).__name__}) writes many languages: pass `source_lang`, the code of "
            "the low-resource language, such as 'heb_Hebr' for NLLB."
        )
    return [start] if language is None or language == start else [start, language]


def _generation_settings(writer_settings: GenerationConfig, start_ids: list[int]) -> GenerationConfig:
    return GenerationConfig(
        decoder_start_token_id=start_ids[0],
        pad_token_id=writer_settings.pad_token_id,
        eos_token_id=writer_settings.eos_token_id,
        bos_token_id=writer_settings.bos_token_id,
        bad_words_ids=writer_settings.bad_words_ids,
        **PAPER_SAMPLING,
    )
