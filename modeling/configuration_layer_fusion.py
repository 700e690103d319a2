"""LayerFusionConfig: a frozen multilingual encoder, a frozen LLM, and what is trained between them."""

from transformers import AutoConfig, PreTrainedConfig

from .part_configs_tall import (
    SOURCE_FUSIONS,
    build_part,
    check_choice,
    check_deviation,
    check_labels_and_dtype,
    check_own_fields,
    check_part,
    check_token_ids,
    check_types,
    inherit_token_ids,
)


MAPPING_TYPES = ("linear", "mlp")

# The paper's XNLI experiment (arXiv 2508.09091): mT5-large and Llama-3.2-1B-Instruct.
_DEFAULT_PARTS = {
    "encoder_config": {
        "model_type": "mt5",
        "vocab_size": 250112,
        "d_model": 1024,
        "d_kv": 64,
        "d_ff": 2816,
        "num_layers": 24,
        "num_decoder_layers": 24,
        "num_heads": 16,
        "feed_forward_proj": "gated-gelu",
    },
    "llm_config": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
    },
}


class LayerFusionConfig(PreTrainedConfig):
    """Configuration of a frozen LLM that reads what a frozen multilingual encoder has read (arXiv 2508.09091).

    Without arguments it describes the paper's XNLI model. With `source_fusion="last"` and `end_vector_std=1.0` it is
    LangBridge; with `mapping_type="mlp"` it has the mapping of MindMerger.

    Args:
        encoder_config (`dict` or `PreTrainedConfig`):
            The frozen encoder, or an encoder-decoder of which the encoder is used (mT5, NLLB, Marian, XLM-R).
        llm_config (`dict` or `PreTrainedConfig`):
            The frozen LLM, which answers with its own head.
        source_fusion (`str`, defaults to `"token_softmax"`):
            Which layers of the encoder are read: `"last"`, `"global_softmax"` or `"token_softmax"`, as in TALLConfig.
        mapping_type (`str`, defaults to `"linear"`):
            What takes the encoder's width to the LLM's. `"linear"`: one linear map; `"mlp"`: two with a ReLU between them, twice
            the encoder's width inside.
        end_vector_std (`float`, defaults to 0.0):
            Standard deviation of the learned vector behind the source at the start; zeros in the paper.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the mapping's weights at the start.
        components (`dict`, *optional*):
            Where each part came from: `{"encoder": {"name_or_path": ..., "revision": ...}, "llm": ...}`.
        trainable_only (`bool`, defaults to `False`):
            Set in a light checkpoint, the adapters alone; `tall_hf.load_light` loads it, nothing else does.

    Raises:
        ValueError: for an unknown switch value, or an LLM that is an encoder-decoder.
    """

    model_type = "layer_fusion"
    sub_configs = {"encoder_config": AutoConfig, "llm_config": AutoConfig}
    keys_to_ignore_at_inference = ["past_key_values"]

    encoder_config: dict | PreTrainedConfig | None = None
    llm_config: dict | PreTrainedConfig | None = None
    source_fusion: str = "token_softmax"
    mapping_type: str = "linear"
    end_vector_std: float | int = 0.0
    initializer_range: float | int = 0.02
    components: dict[str, dict] | None = None
    trainable_only: bool = False
    use_cache: bool = True
    tie_word_embeddings: bool | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        check_own_fields(kwargs, LayerFusionConfig)
        check_labels_and_dtype("config", self.id2label, self.dtype)
        for name, default in _DEFAULT_PARTS.items():
            setattr(self, name, build_part(name, getattr(self, name), default))
        # It writes with the LLM, so its special tokens are the LLM's.
        inherit_token_ids(self, self.llm_config)
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = bool(getattr(self.llm_config, "tie_word_embeddings", False))
        # Read by AutoModel when the checkpoint is loaded through trust_remote_code.
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": "configuration_layer_fusion.LayerFusionConfig",
                "AutoModel": "modeling_layer_fusion.LayerFusionForCausalLM",
                "AutoModelForCausalLM": "modeling_layer_fusion.LayerFusionForCausalLM",
            },
        )
        super().__post_init__(**kwargs)
        self.validate_layer_fusion()

    def validate(self):
        """Called by `save_pretrained`: a switch may have been set since."""
        super().validate()
        self.validate_layer_fusion()

    def validate_layer_fusion(self):
        """Check every switch; each error says what would be accepted."""
        check_choice("source_fusion", self.source_fusion, SOURCE_FUSIONS)
        check_choice("mapping_type", self.mapping_type, MAPPING_TYPES)
        for name in ("end_vector_std", "initializer_range"):
            check_deviation(name, getattr(self, name))
        check_types(self, LayerFusionConfig)
        check_labels_and_dtype("config", self.id2label, self.dtype)
        for name in self.sub_configs:
            check_part(name, getattr(self, name))
        check_token_ids(self, self.llm_config.get_text_config().vocab_size)
        if self.llm_config.is_encoder_decoder:
            raise ValueError(
                f"`llm_config` is of type {self.llm_config.model_type!r}, an encoder-decoder; the LLM must be a decoder-only "
                "language model, such as Llama, Qwen2 or BLOOM."
            )

    @property
    def encoder_layers(self) -> int:
        """Layers of the encoder."""
        config = self.encoder_config
        return getattr(config, "encoder_layers", None) or config.num_hidden_layers

    @property
    def encoder_size(self) -> int:
        """Width of the encoder's states."""
        return self.encoder_config.hidden_size

    @property
    def max_source_length(self) -> int | None:
        """Longest source in tokens that the encoder has positions for; None where its positions are relative (mT5)."""
        positions = getattr(self.encoder_config, "max_position_embeddings", None)
        if positions is not None and "roberta" in self.encoder_config.model_type:
            return positions - self.encoder_config.pad_token_id - 1  # these count from behind the padding token
        return positions

    @property
    def max_llm_length(self) -> int | None:
        """Longest row, source and end vector included, that the LLM has positions for; None without a limit (BLOOM)."""
        return getattr(self.llm_config.get_text_config(), "max_position_embeddings", None)

    def get_text_config(self, decoder=None, encoder=None):
        """The LLM's configuration, or the encoder's for `encoder=True`."""
        if encoder and not decoder:
            return self.encoder_config.get_text_config(encoder=True)
        return self.llm_config.get_text_config(decoder=decoder)
