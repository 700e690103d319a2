"""TALLConfig: the three frozen parts' configurations and the switches of the trainable adapters between them."""

from transformers import AutoConfig, PreTrainedConfig

from .part_configs_tall import (
    SOURCE_FUSIONS,
    TRANSLATOR_TYPES,
    build_part,
    check_choice,
    check_deviation,
    check_generation,
    check_labels_and_dtype,
    check_own_fields,
    check_part,
    check_positive,
    check_token_ids,
    check_types,
    inherit_token_ids,
)


ALIGNMENT_TYPES = ("mlp", "linear", "identity")
SOURCE_BRIDGES = ("marian", "gated", "concat", "none")

# The paper's Qwen2.5-0.5B experiment on Hebrew: what `TALLConfig()` describes when it is given no parts.
_DEFAULT_PARTS = {
    "lr_hr_config": {
        "model_type": "marian",
        "vocab_size": 60269,
        "d_model": 1024,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 16,
        "decoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "decoder_ffn_dim": 4096,
        "max_position_embeddings": 1024,
        "activation_function": "relu",
        "scale_embedding": True,
        "pad_token_id": 60268,
        "decoder_start_token_id": 60268,
    },
    "llm_config": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "tie_word_embeddings": True,
    },
    "hr_lr_config": {
        "model_type": "marian",
        "vocab_size": 65839,
        "d_model": 512,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "max_position_embeddings": 512,
        "activation_function": "swish",
        "scale_embedding": True,
        "pad_token_id": 65838,
        "decoder_start_token_id": 65838,
    },
}


class TALLConfig(PreTrainedConfig):
    """Configuration of a TALL model (arXiv 2506.05057): three frozen parts and the adapters that join them.

    Without arguments it describes the paper's Hebrew model around Qwen2.5-0.5B.

    Args:
        lr_hr_config (`dict` or `PreTrainedConfig`):
            The frozen translator from the low-resource into the high-resource language (Marian, M2M100/NLLB, mBART).
        llm_config (`dict` or `PreTrainedConfig`):
            The frozen LLM, of which only the body is used.
        hr_lr_config (`dict` or `PreTrainedConfig`):
            The translator back, of which the decoder and its LM head are used (Marian, M2M100/NLLB, mBART).
        source_bridge (`str`, defaults to `"marian"`):
            How the source sentence reaches the LLM. `"marian"`: custom decoder 1 of the paper writes the LLM's input;
            `"gated"`: its output is added to the LLM's own embeddings behind a gate; `"concat"`: the aligned source states
            stand before the embeddings of the translation; `"none"`: the translation alone.
        gate_init (`float`, defaults to 0.2):
            Where a gated bridge's gate g starts; tanh(g) is its width. At 0 the LLM first reads exactly what it was
            pretrained on, but the gate and what stands behind it hold each other back: neither learns much while the other
            is at its start. Slightly open (0.2) they learn from the first step.
        source_fusion (`str`, defaults to `"last"`):
            Which layers of the source encoder are read. `"last"`: the last one, as in the paper; `"global_softmax"`: all of
            them, weighed by numbers that are learned; `"token_softmax"`: weighed for each token by a small transformer that
            is learned (both arXiv 2508.09091).
        alignment_type (`str`, defaults to `"mlp"`):
            What both dimension alignments are. `"mlp"`: the paper's two linear maps with LayerNorms and a GELU; `"linear"`:
            one linear map; `"identity"`: nothing, between parts of equal width.
        alignment_hidden_size (`int`, *optional*):
            Hidden width of the `"mlp"` alignments; twice their output width when not given, as in the paper.
        alignment_dropout (`float`, defaults to 0.1):
            Dropout inside the `"mlp"` alignments.
        bridge_attention_heads (`int`, *optional*):
            Heads of custom decoder 1; those of the LR→HR translator's decoder when not given.
        look_ahead (`int`, defaults to 0):
            How many tokens the LLM writes behind the translation, greedily, before the next stages read its states, those at
            what it wrote among them. Not in the paper. It needs an LLM whose head is its token embeddings.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the alignments' linear weights at the start.
        translation_generation_config (`dict`, *optional*):
            The LR→HR translator's own generation settings, used by `model.translate`.
        components (`dict`, *optional*):
            Where each part came from: `{"lr_hr": {"name_or_path": ..., "revision": ...}, "llm": ..., "hr_lr": ...}`; with
            "merged_lora" or "unfrozen" where training has changed it since.
        trainable_only (`bool`, defaults to `False`):
            Set in a checkpoint that holds the trained adapters only; `tall_hf.load_light` loads it, nothing else does.
        lora (`dict`, *optional*):
            Set in a checkpoint with LoRA that is not merged; `tall_hf.training.lora.load_lora` loads it, nothing else does.

    Raises:
        ValueError: for an unknown switch value, a part of an unsupported type, or widths and heads that do not divide.
    """

    model_type = "tall"
    sub_configs = {"lr_hr_config": AutoConfig, "llm_config": AutoConfig, "hr_lr_config": AutoConfig}
    # What the Trainer hands to metrics is the logits alone.
    keys_to_ignore_at_inference = ["past_key_values", "encoder_last_hidden_state"]

    lr_hr_config: dict | PreTrainedConfig | None = None
    llm_config: dict | PreTrainedConfig | None = None
    hr_lr_config: dict | PreTrainedConfig | None = None
    source_bridge: str = "marian"
    source_fusion: str = "last"
    alignment_type: str = "mlp"
    alignment_hidden_size: int | None = None
    alignment_dropout: float | int = 0.1
    gate_init: float | int = 0.2
    bridge_attention_heads: int | None = None
    look_ahead: int = 0
    initializer_range: float | int = 0.02
    translation_generation_config: dict | None = None
    components: dict[str, dict] | None = None
    trainable_only: bool = False
    lora: dict | None = None
    use_cache: bool = True
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs):
        check_own_fields(kwargs, TALLConfig)
        check_labels_and_dtype("config", self.id2label, self.dtype)
        for name, default in _DEFAULT_PARTS.items():
            setattr(self, name, build_part(name, getattr(self, name), default))
        # The composite writes with the HR→LR decoder, so its special tokens are that decoder's unless said otherwise.
        inherit_token_ids(self, self.hr_lr_config)
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = bool(getattr(self.hr_lr_config, "tie_word_embeddings", False))
        # Read by AutoModel and pipeline() when the checkpoint is loaded through trust_remote_code.
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": "configuration_tall.TALLConfig",
                "AutoModel": "modeling_tall.TALLForCausalLM",
                "AutoModelForCausalLM": "modeling_tall.TALLForCausalLM",
                "AutoModelForSeq2SeqLM": "modeling_tall.TALLForCausalLM",
            },
        )
        kwargs.setdefault(
            "custom_pipelines",
            {
                "text-generation": {
                    "impl": "pipeline_tall.TALLTextGenerationPipeline",
                    "pt": ["AutoModelForSeq2SeqLM"],
                    "type": "text",
                }
            },
        )
        super().__post_init__(**kwargs)
        self.validate_tall()

    def validate(self):
        """Called by `save_pretrained`: a switch may have been set since."""
        super().validate()
        self.validate_tall()

    def validate_tall(self):
        """Check every switch, and that the parts fit together; each error says what would be accepted."""
        check_choice("source_bridge", self.source_bridge, SOURCE_BRIDGES)
        check_choice("source_fusion", self.source_fusion, SOURCE_FUSIONS)
        check_choice("alignment_type", self.alignment_type, ALIGNMENT_TYPES)
        check_positive("alignment_hidden_size", self.alignment_hidden_size)
        if self.alignment_hidden_size is not None and self.alignment_type != "mlp":
            raise ValueError(
                f'`alignment_hidden_size` is of the alignments "mlp"; leave it out with `alignment_type` '
                f"{self.alignment_type!r}."
            )
        check_positive("bridge_attention_heads", self.bridge_attention_heads)
        dropout = self.alignment_dropout
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0.0 <= dropout < 1.0:
            raise ValueError(f"`alignment_dropout` must be a number in [0, 1), got {dropout!r}.")
        if (
            isinstance(self.gate_init, bool)
            or not isinstance(self.gate_init, int | float)
            or not abs(self.gate_init) <= 3
        ):
            raise ValueError(f"`gate_init` must be a number in [-3, 3], got {self.gate_init!r}; 0.2 is slightly open.")
        look_ahead = self.look_ahead
        if isinstance(look_ahead, bool) or not isinstance(look_ahead, int) or look_ahead < 0:
            raise ValueError(f"`look_ahead` must be a whole number of tokens, at least 0, got {look_ahead!r}.")
        check_deviation("initializer_range", self.initializer_range)
        check_types(self, TALLConfig)
        check_labels_and_dtype("config", self.id2label, self.dtype)
        for name in self.sub_configs:
            check_part(name, getattr(self, name))
        check_token_ids(self, self.hr_lr_config.vocab_size)
        # Marian may have a vocabulary of its own to write with.
        written = max(self.lr_hr_config.vocab_size, getattr(self.lr_hr_config, "decoder_vocab_size", None) or 0)
        check_generation("translation_generation_config", self.translation_generation_config or {}, written)
        for name in ("lr_hr_config", "hr_lr_config"):
            model_type = getattr(self, name).model_type
            if model_type not in TRANSLATOR_TYPES:
                raise ValueError(
                    f"`{name}` is of type {model_type!r}; supported translators are {', '.join(TRANSLATOR_TYPES)} "
                    "(NLLB checkpoints are of type m2m_100)."
                )
        if self.hr_lr_config.encoder_layers < 1:
            raise ValueError(
                "`hr_lr_config` has `encoder_layers` 0, but custom encoder 2 is built after that encoder; give it a layer at least."
            )
        if self.llm_config.is_encoder_decoder:
            raise ValueError(
                f"`llm_config` is of type {self.llm_config.model_type!r}, an encoder-decoder; the LLM must be a decoder-only "
                "language model, such as Qwen2, Llama or BLOOM."
            )
        if look_ahead and not self.llm_config.get_text_config().tie_word_embeddings:
            raise ValueError(
                "`look_ahead` takes the LLM's next token from its token embeddings, and this LLM has a head of its own "
                "(`tie_word_embeddings` is false); leave it at 0."
            )
        if look_ahead and self.max_translation_length < 1:
            raise ValueError(
                f"`look_ahead` of {look_ahead} tokens leaves the translation none of the "
                f"{self.max_translation_length + look_ahead} positions there are; lower it."
            )
        if self.alignment_type == "identity":
            self._check_equal_widths()
        if self.source_bridge == "none" and self.source_fusion != "last":
            raise ValueError(
                f'`source_fusion` {self.source_fusion!r} fuses states that the bridge "none" does not read; leave it at "last", '
                "or choose another `source_bridge`."
            )
        if self.source_bridge in ("marian", "gated"):
            self._check_bridge_heads()

    def _check_equal_widths(self):
        widths = {"the LLM": self.llm_embedding_size, "the HR→LR translator": self.hr_lr_config.d_model}
        if self.source_bridge != "none":
            widths["the LR→HR translator"] = self.lr_hr_config.d_model
        if len(set(widths.values())) > 1:
            found = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise ValueError(
                f'`alignment_type` "identity" needs parts of equal width, and these have {found}. Take "mlp" or "linear".'
            )

    def _check_bridge_heads(self):
        width, heads = self.llm_embedding_size, self.bridge_heads
        if width % heads:
            below = [n for n in range(1, min(heads, width) + 1) if width % n == 0]
            raise ValueError(
                f"Custom decoder 1 has the LLM's width {width}, which is not divisible by {heads} attention heads (from "
                f"{'`bridge_attention_heads`' if self.bridge_attention_heads else 'the LR→HR translator'}). Pass "
                f"`bridge_attention_heads={below[-1]}`, the largest count up to {heads} that divides it."
            )

    @property
    def bridge_heads(self) -> int:
        """Attention heads of custom decoder 1."""
        return self.bridge_attention_heads or self.lr_hr_config.decoder_attention_heads

    @property
    def llm_embedding_size(self) -> int:
        """Width of the LLM's token embeddings, which is what its body reads and writes (OPT may project inside)."""
        text_config = self.llm_config.get_text_config()
        return getattr(text_config, "word_embed_proj_dim", None) or text_config.hidden_size

    @property
    def max_source_length(self) -> int:
        """Longest source sentence, in tokens of the LR→HR translator; in `"concat"` it leaves the LLM half its positions."""
        positions = self.lr_hr_config.max_position_embeddings
        if self.source_bridge == "concat" and self._llm_positions is not None:
            return min(positions, self._llm_positions // 2)
        return positions

    @property
    def max_translation_length(self) -> int:
        """Longest translation, in tokens of the LLM, that the LLM and both custom transformers have positions for."""
        tables = [self.hr_lr_config.max_position_embeddings]
        if self.source_bridge in ("marian", "gated"):
            tables.append(self.lr_hr_config.max_position_embeddings)
        if self._llm_positions is not None:
            taken = self.max_source_length if self.source_bridge == "concat" else 0
            tables.append(self._llm_positions - taken)
        return min(tables) - self.look_ahead

    @property
    def _llm_positions(self) -> int | None:
        # BLOOM's ALiBi has no table.
        return getattr(self.llm_config.get_text_config(), "max_position_embeddings", None)

    @property
    def max_target_length(self) -> int:
        """Longest target text, prefix and continuation together, in tokens of the HR→LR translator."""
        return self.hr_lr_config.max_position_embeddings

    def get_text_config(self, decoder=None, encoder=None):
        """The HR→LR translator's configuration (what writes the text), or the source translator's for `encoder=True`."""
        if encoder and not decoder:
            return self.lr_hr_config.get_text_config(encoder=True)
        return self.hr_lr_config.get_text_config(decoder=decoder)
