"""AlignmentInput: which hidden states an alignment is pretrained on, and what it is to make of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.modeling.text_rows_tall import pad_rows

from .embedding_targets import EmbeddingTargets


@dataclass(frozen=True)
class AlignmentInput:
    """Where an alignment's states come from, a column of the dataset through a frozen module, and what it makes of them.

    Without `targets` it is to keep them, as the encoder half of an autoencoder.
    """

    # Of the alignment, as `encoder` calls it.
    name: str
    column: str
    pad_token_id: int
    module: nn.Module
    # What joins the layers of the module, if more than the last one is read.
    fusion: nn.Module | None
    read: Callable[[torch.LongTensor, torch.LongTensor], torch.Tensor]
    targets: EmbeddingTargets | None = None


def alignment_inputs(model: TALLForCausalLM, processor: TALLProcessor, objective: str) -> list[AlignmentInput]:
    """Where each alignment that learns by an objective has its states from."""
    encoder = model.encoder

    def read_translation(ids, mask):
        embeddings = encoder.llm.get_input_embeddings()(ids)  # as the model's forward feeds it
        return encoder.llm(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state

    target = AlignmentInput(
        "target_alignment",
        "llm_input_ids",
        processor.llm_tokenizer.pad_token_id,
        encoder.llm,
        None,
        read_translation,
        EmbeddingTargets(model, processor) if objective == "embeddings" else None,
    )
    if encoder.source_alignment is None or objective == "embeddings":
        return [target]
    source = AlignmentInput(
        "source_alignment",
        "input_ids",
        processor.source_tokenizer.pad_token_id,
        encoder.translator.get_encoder(),
        encoder.source_fusion,
        encoder.encode_source,
    )
    return [source, target]


@torch.no_grad()
def input_states(part: AlignmentInput, rows: list[list[int]]) -> torch.Tensor:
    """What an alignment reads of some sentences: one state for each token and none for padding.

    Returns:
        (tokens, width) in float32.

    Raises:
        ValueError: a state is not finite.
    """
    device = next(part.module.parameters()).device
    ids, mask = (tensor.to(device) for tensor in pad_rows(rows, part.pad_token_id, "right"))
    states = part.read(ids, mask)[mask.bool()].float()
    if not torch.isfinite(states).all():
        raise ValueError(
            f"The states that {part.name} reads are not finite. Half precision may be too small for this part: compose "
            "with dtype 'bfloat16' or 'float32'."
        )
    return states
