"""The parameter table of a TALL, counted as the paper's Tables 2 to 4 count."""


def parameter_table(model) -> list[tuple[str, int, int, int]]:
    """Rows (module, total, trainable as the paper counts, requires_grad); see `TALLForCausalLM.parameter_table`."""
    encoder = model.encoder
    llm_embeddings = encoder.llm.get_input_embeddings()
    source_encoder = encoder.translator.get_encoder()
    head_is_tied = model.config.tie_word_embeddings
    rows = [
        ("LR→HR encoder", _count(source_encoder), 0, _count(source_encoder, True)),
        ("LLM embeddings", _count(llm_embeddings), 0, _count(llm_embeddings, True)),
        _adapter_row("alignment 1", encoder.source_alignment),
        _adapter_row("custom decoder 1", encoder.source_decoder),
        (
            "LLM body",
            _count(encoder.llm) - _count(llm_embeddings),
            0,
            _count(encoder.llm, True) - _count(llm_embeddings, True),
        ),
        _adapter_row("alignment 2", encoder.target_alignment),
        _adapter_row("custom encoder 2", encoder.target_encoder),
        ("HR→LR decoder", _count(model.decoder), 0, _count(model.decoder, True)),
    ]
    if encoder.source_fusion is not None:
        rows.insert(1, _adapter_row("source fusion", encoder.source_fusion))
    if encoder.gate is not None:
        rows.insert(-4, ("gate", 1, 1, int(encoder.gate.requires_grad)))
    head = ("LM head", _count(model.lm_head), 0, _count(model.lm_head, True))
    if not head_is_tied:
        rows.append(head)
    total = ("total", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    if head_is_tied:
        rows.append(("LM head (tied)", head[1], 0, 0))
    rows.append(total)
    decoder_half = _count(encoder.translator) - _count(source_encoder)
    rows.append(("LR→HR decoder (translation only, not in the total)", decoder_half, 0, 0))
    return rows


def _count(module, requires_grad_only=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not requires_grad_only)


def _adapter_row(name, module):
    if module is None:
        return (name, 0, 0, 0)
    return (name, _count(module), _count(module), _count(module, True))
