"""The two Marian transformers that a TALL trains: custom decoder 1 (stage 3) and custom encoder 2 (stage 6)."""

import copy

from transformers import MarianConfig
from transformers.models.marian.modeling_marian import MarianDecoder, MarianEncoder

from .configuration_tall import TALLConfig


def build_source_decoder(config: TALLConfig, width: int) -> MarianDecoder:
    """Custom decoder 1: layers, heads and feed-forward of the LR→HR translator's decoder at the LLM's width."""
    part = config.lr_hr_config
    marian_config = _marian_config(
        config,
        part,
        d_model=width,
        decoder_layers=part.decoder_layers,
        decoder_attention_heads=config.bridge_heads,
        decoder_ffn_dim=part.decoder_ffn_dim,
        # The cache and the masks count layers and heads by the encoder's fields.
        encoder_layers=part.decoder_layers,
        encoder_attention_heads=config.bridge_heads,
        activation_function="gelu",
        is_decoder=True,
    )
    decoder = MarianDecoder(marian_config)
    decoder.embed_tokens = None  # its queries are the LLM's embeddings
    return decoder


def build_target_encoder(config: TALLConfig) -> MarianEncoder:
    """Custom encoder 2: a Marian encoder with the HR→LR translator's encoder settings."""
    part = config.hr_lr_config
    marian_config = _marian_config(
        config,
        part,
        d_model=part.d_model,
        encoder_layers=part.encoder_layers,
        encoder_attention_heads=part.encoder_attention_heads,
        encoder_ffn_dim=part.encoder_ffn_dim,
        activation_function=part.activation_function,
    )
    encoder = MarianEncoder(marian_config)
    encoder.embed_tokens = None  # it reads aligned states
    return encoder


def _marian_config(config: TALLConfig, part, **settings) -> MarianConfig:
    marian_config = MarianConfig(
        # Neither custom transformer embeds tokens; one row is the smallest table Marian can be built with.
        vocab_size=1,
        pad_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        max_position_embeddings=part.max_position_embeddings,
        scale_embedding=part.scale_embedding,
        dropout=part.dropout,
        attention_dropout=part.attention_dropout,
        activation_dropout=part.activation_dropout,
        init_std=part.init_std,
        is_encoder_decoder=False,
        **settings,
    )
    marian_config._attn_implementation = copy.copy(config._attn_implementation)
    return marian_config
