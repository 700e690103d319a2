"""Compose a LayerFusionForCausalLM from a pretrained encoder and a pretrained LLM."""

import os

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from tall_hf.components import language_id, needs_language
from tall_hf.loading import Component, as_dtype, assemble, check_vocabulary, load_part, load_tokenizer
from tall_hf.modeling.configuration_layer_fusion import LayerFusionConfig
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM, source_encoder
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor


# The two parts, as `compose_layer_fusion` calls them and `LayerFusionConfig.components` records them.
LAYER_FUSION_ROLES = ("encoder", "llm")
# The fields of LayerFusionConfig that are a user's choice.
LAYER_FUSION_SWITCHES = ("source_fusion", "mapping_type", "end_vector_std", "initializer_range")


def compose_layer_fusion(
    encoder: str | os.PathLike,
    llm: str | os.PathLike,
    *,
    source_lang: str | None = None,
    max_source_length: int | None = 200,
    repeat_source: bool = False,
    dtype: torch.dtype | str = torch.float32,
    attn_implementation: str | dict | None = None,
    device_map: str | dict | None = None,
    token: str | bool | None = None,
    allow_pickle: bool = False,
    **config_switches,
) -> tuple[LayerFusionForCausalLM, LayerFusionProcessor]:
    """Build a LayerFusionForCausalLM with pretrained frozen parts, and a fresh fusion, mapping and end vector.

    LangBridge is `source_fusion="last", end_vector_std=1.0`; MindMerger is `source_fusion="last", mapping_type="mlp"`, with
    `repeat_source=True` (of the processor) in its second stage.

    Args:
        encoder: the multilingual encoder, or an encoder-decoder of which the encoder is used: a folder, or a Hub id with an
            optional `@revision`. mT5, NLLB, M2M100, mBART, Marian, XLM-R, BERT.
        llm: the language model.
        source_lang: code of the sources' language, for an encoder that wants one (such as `eng_Latn` for NLLB).
        max_source_length: longest source in tokens; no more than the encoder has positions for.
        repeat_source: let the LLM read the source in its own tokens too.
        dtype, attn_implementation, device_map, token, allow_pickle: as for `compose`.
        config_switches: further fields of LayerFusionConfig, such as `source_fusion="global_softmax"`.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        OSError: for a part that cannot be found, or only has pickled weights.
        TypeError: for an unknown switch.
        ValueError: for parts that do not fit.
    """
    dtype = as_dtype(dtype)
    if unknown := set(config_switches) - set(LAYER_FUSION_SWITCHES):
        raise TypeError(
            f"Unknown argument {', '.join(map(repr, sorted(unknown)))}. Beside its own arguments, `compose_layer_fusion` takes "
            f"the switches of LayerFusionConfig: {', '.join(LAYER_FUSION_SWITCHES)}."
        )
    parts = {role: Component.resolve(spec, token) for role, spec in (("encoder", encoder), ("llm", llm))}
    part_configs = {f"{role}_config": part.load(AutoConfig, token=token) for role, part in parts.items()}
    components = {role: {"name_or_path": part.name_or_path, "revision": part.revision} for role, part in parts.items()}
    _check_encoder(parts["encoder"], part_configs["encoder_config"])
    config = LayerFusionConfig(**part_configs, components=components, **config_switches)
    tokenizers = {role: load_tokenizer(part, token) for role, part in parts.items()}
    if source_lang is not None and needs_language(tokenizers["encoder"]):
        # The tokenizer itself would pass over one that it does not know.
        language_id(tokenizers["encoder"], source_lang)
    for role, part in parts.items():
        size = getattr(config, f"{role}_config").get_text_config().vocab_size
        check_vocabulary(part, tokenizers[role], size)
    # Marian's fixed positions are only known to be missing by the class that its checkpoints have.
    reader_class = AutoModelForSeq2SeqLM if config.encoder_config.is_encoder_decoder else AutoModel
    # A pooler is not read, and many checkpoints have none.
    reader = source_encoder(load_part(parts["encoder"], reader_class, dtype, token, allow_pickle, unused=("pooler.",)))
    writer = load_part(parts["llm"], AutoModelForCausalLM, dtype, token, allow_pickle)
    state_dict = {f"encoder.{name}": weight for name, weight in reader.state_dict().items()}
    state_dict |= {f"llm.{name}": weight for name, weight in writer.state_dict().items()}
    model = assemble(LayerFusionForCausalLM, config, state_dict, dtype, attn_implementation, device_map)
    model.generation_config = writer.generation_config
    processor = LayerFusionProcessor(
        tokenizer=tokenizers["llm"],
        source_tokenizer=tokenizers["encoder"],
        source_lang=source_lang,
        max_source_length=min(filter(None, (max_source_length, config.max_source_length)), default=None),
        repeat_source=repeat_source,
    )
    return model, processor


def _check_encoder(part: Component, config: PreTrainedConfig) -> None:
    """Refuse what has no encoder: a composed model, or a language model that only reads from left to right."""
    only_decodes = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    only_decodes = only_decodes and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if not config.is_encoder_decoder and (only_decodes or not hasattr(config, "hidden_size")):
        raise ValueError(
            f"{part.name_or_path} is of type {config.model_type!r}, which is no encoder and has none; the encoder is a "
            "multilingual one, such as mT5, NLLB or XLM-R."
        )
