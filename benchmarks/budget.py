"""Where the work goes, by arithmetic alone: FLOP and bytes of each stage, so that a missed aim can be explained.

FLOP are those of the linear layers and of attention, two for each product that is added; bytes are weights that are fetched,
each once a pass, which is what bounds small batches. Both work on the meta device, so for models that do not fit. They are the
useful ones: nothing that is computed twice or thrown away is counted twice.
"""

from dataclasses import dataclass

from torch import nn

from tall_hf import TALLForCausalLM


# What AdamW reads and writes of each trained weight: the weight and both moments, read and written, and the gradient.
_OPTIMIZER_BYTES = 7 * 4


@dataclass(frozen=True)
class Stage:
    """Work of one stage: FLOP forward and backward, and bytes of weights fetched."""

    name: str
    forward: float
    backward: float
    bytes: float

    @property
    def flop(self) -> float:
        return self.forward + self.backward

    def times(self, count: float) -> "Stage":
        """So many of it."""
        return Stage(self.name, count * self.forward, count * self.backward, count * self.bytes)


def encoding(
    model: TALLForCausalLM, batch: int, source: int, translation: int, itemsize: int, training: bool = False
) -> list[Stage]:
    """Stages 1 to 6 for `batch` sentences of `source` tokens, with translations of `translation` tokens."""
    encoder, config = model.encoder, model.config
    llm_width = config.llm_config.get_text_config().hidden_size
    llm_layers = config.llm_config.get_text_config().num_hidden_layers
    reader, bridge, target = config.lr_hr_config, config.lr_hr_config, config.hr_lr_config
    stages = [
        _stage(
            "1 source encoder",
            encoder.translator.get_encoder(),
            batch * source,
            itemsize,
            attention=_attention(reader.encoder_layers, batch, source, source, reader.d_model),
        )
    ]
    if encoder.source_alignment is not None:
        stages.append(
            _stage(
                "2 alignment 1",
                encoder.source_alignment,
                batch * source,
                itemsize,
                2 * training,
                constant=("up_proj",),
            )
        )
    if encoder.source_decoder is not None:
        attention = _attention(bridge.decoder_layers, batch, translation, translation + source, llm_width)
        stages.append(
            _stage(
                "3 custom decoder 1",
                encoder.source_decoder,
                batch * translation,
                itemsize,
                2 * training,
                memory_tokens=batch * source,
                attention=attention,
                constant=tuple(f"layers.0.self_attn.{part}_proj" for part in "qkv"),
            )
        )
    return [
        *stages,
        _stage(
            "4 LLM",
            encoder.llm,
            batch * translation,
            itemsize,
            training and config.source_bridge != "none",
            attention=_attention(llm_layers, batch, translation, translation, llm_width),
        ),
        _stage("5 alignment 2", encoder.target_alignment, batch * translation, itemsize, 2 * training),
        _stage(
            "6 custom encoder 2",
            encoder.target_encoder,
            batch * translation,
            itemsize,
            2 * training,
            attention=_attention(target.encoder_layers, batch, translation, translation, target.d_model),
        ),
    ]


def writing(
    model: TALLForCausalLM,
    batch: int,
    translation: int,
    target: int,
    itemsize: int,
    kept: int = 1,
    training: bool = False,
) -> list[Stage]:
    """Stage 7 for `target` tokens a sentence, with logits at `kept` of them."""
    config = model.config.hr_lr_config
    attention = _attention(config.decoder_layers, batch, target, target + translation, config.d_model)
    return [
        _stage(
            "7 HR→LR decoder",
            model.decoder,
            batch * target,
            itemsize,
            1 * training,
            memory_tokens=batch * translation,
            attention=attention,
            constant=("layers.0.self_attn.", "layers.0.encoder_attn.q_proj"),
        ),
        _stage("7 LM head", model.lm_head, batch * kept, itemsize, 1 * training),
    ]


def translating(
    model: TALLForCausalLM, batch: int, source: int, length: int, beams: int, itemsize: int
) -> list[Stage]:
    """The LR→HR translator writing `length` tokens a sentence by beams, with a cache."""
    translator, config = model.encoder.translator, model.config.lr_hr_config
    decoder = _stage(
        "translator's decoder",
        translator.get_decoder(),
        batch * beams * length,
        itemsize,
        memory_tokens=batch * source,
        attention=_attention(config.decoder_layers, batch * beams, length, length / 2 + source, config.d_model),
    )
    head = _stage("translator's head", translator.get_output_embeddings(), batch * beams * length, itemsize)
    # Every token fetches the weights again.
    again = [Stage(stage.name, stage.forward, 0.0, length * stage.bytes) for stage in (decoder, head)]
    return [*encoding(model, batch, source, 1, itemsize)[:1], *again]


def training_step(
    model: TALLForCausalLM, batch: int, source: int, translation: int, target: int, itemsize: int
) -> list[Stage]:
    """Forward, backward and optimizer for one learned token a sentence."""
    return [
        *encoding(model, batch, source, translation, itemsize, training=True),
        *writing(model, batch, translation, target, itemsize, training=True),
    ]


def _stage(name, module, tokens, itemsize, backward=0, memory_tokens=0, attention=0.0, constant=()) -> Stage:
    """One module's work.

    Args:
        backward: 0 without gradients, 1 for gradients of inputs alone, 2 for those of weights too.
        memory_tokens: what cross-attention's keys and values are made of.
        attention: FLOP of attention's own products, forward.
        constant: how the paths of linear layers begin whose input has no gradient.
    """
    forward = gradients = weights = 0.0
    for path, linear in _linears(module):
        is_memory = path.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
        products = 2.0 * linear.weight.numel() * (memory_tokens if is_memory else tokens)
        forward += products
        gradients += products * max(0, backward - path.startswith(constant))
        weights += linear.weight.numel()
    fetched = weights * itemsize * (2 if backward else 1) + (weights * _OPTIMIZER_BYTES if backward == 2 else 0)
    # Both factors of attention's products have gradients, whoever is trained.
    return Stage(name, forward + attention, gradients + (2 * attention if backward else 0), fetched)


def _linears(module):
    return [(path, part) for path, part in module.named_modules() if isinstance(part, nn.Linear)]


def _attention(layers, rows, queries, keys, width) -> float:
    return 4.0 * layers * rows * queries * keys * width
