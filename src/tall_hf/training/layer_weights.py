"""What a source fusion has learned: how much each layer of the source encoder weighs, over the tokens of some rows."""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from tall_hf.modeling.encoder_tall import in_dtype_of
from tall_hf.modeling.modeling_tall import TALLForCausalLM


@dataclass(frozen=True)
class LayerWeight:
    """Of one layer, over tokens.

    Attributes:
        mean: of its weight; the means of all layers sum to 1.
        std: how much tokens differ; 0 where all have the same weights.
    """

    mean: float
    std: float


@torch.inference_mode()
def source_layer_weights(model: TALLForCausalLM, rows, max_rows: int = 256, batch_size: int = 16) -> list[LayerWeight]:
    """The weight of each layer of the source encoder, from the first.

    Args:
        model: a TALL with a source fusion.
        rows: a dataset or list of rows with `input_ids`, source tokens.
        max_rows: how many of them are read, the first ones.
        batch_size: rows at a time.

    Raises:
        ValueError: the model reads its last layer alone, or there are no rows.
    """
    encoder = model.encoder
    if encoder.source_fusion is None:
        raise ValueError(
            'This TALL has `source_fusion="last"`: it reads the last layer alone, and there are no weights.'
        )
    sources = [torch.tensor(row["input_ids"]) for row, _ in zip(rows, range(max_rows), strict=False)]
    if not sources:
        raise ValueError("There are no rows to take layer weights from.")
    was_training = model.training
    model.eval()
    try:
        weights = [
            _weights_of_tokens(encoder, sources[start : start + batch_size])
            for start in range(0, len(sources), batch_size)
        ]
    finally:
        model.train(was_training)
    std, mean = torch.std_mean(torch.cat(weights), dim=0, correction=0)
    return [LayerWeight(*values) for values in zip(mean.tolist(), std.tolist(), strict=True)]


def _weights_of_tokens(encoder, sources: list[torch.Tensor]) -> torch.Tensor:
    """(tokens, layers), padding left out."""
    device = encoder.get_input_embeddings().weight.device
    input_ids = pad_sequence(sources, batch_first=True).to(device)
    mask = pad_sequence([torch.ones_like(row) for row in sources], batch_first=True).to(device)
    layers = encoder.source_layers(input_ids, mask)
    weights = encoder.source_fusion.layer_weights(
        tuple(in_dtype_of(encoder.source_fusion, states) for states in layers)
    )
    return weights[mask.bool()].cpu()
