"""Dimension alignment: what is trained between two models' widths, and the autoencoder the paper's MLP may be pretrained in."""

import torch
from torch import nn


class DimensionAlignment(nn.Module):
    """Linear, LayerNorm, GELU, dropout, Linear, LayerNorm (stages 2 and 5; TALL, section 3).

    Args:
        input_size: width of the states it reads.
        output_size: width of the states it writes.
        hidden_size: width between the two linear maps.
        dropout: probability after the activation.
    """

    def __init__(self, input_size: int, output_size: int, hidden_size: int, dropout: float):
        super().__init__()
        self.up_proj = nn.Linear(input_size, hidden_size)
        self.hidden_norm = nn.LayerNorm(hidden_size)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.down_proj = nn.Linear(hidden_size, output_size)
        self.output_norm = nn.LayerNorm(output_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, length, input_size) to (batch, length, output_size)."""
        hidden_states = self.dropout(self.activation(self.hidden_norm(self.up_proj(hidden_states))))
        return self.output_norm(self.down_proj(hidden_states))


def build_alignment(kind: str, input_size: int, output_size: int, hidden_size: int, dropout: float) -> nn.Module:
    """The module of an `alignment_type`: the paper's MLP, one linear map, or nothing between equal widths."""
    if kind == "linear":
        return nn.Linear(input_size, output_size)
    if kind == "identity":
        return nn.Identity()
    return DimensionAlignment(input_size, output_size, hidden_size, dropout)


class AlignmentAutoencoder(nn.Module):
    """A dimension alignment and its mirror, which together give back the states they are given (TALL, section 3).

    The mirror, output width → hidden width → input width and a LayerNorm, is thrown away after pretraining.

    Args:
        alignment: the encoder half; trained in place.
        initializer_range: standard deviation of the mirror's linear weights at the start; its biases start at zero.
    """

    def __init__(self, alignment: DimensionAlignment, initializer_range: float = 0.02):
        super().__init__()
        self.encoder = alignment
        self.decoder = DimensionAlignment(
            input_size=alignment.down_proj.out_features,
            output_size=alignment.up_proj.in_features,
            hidden_size=alignment.up_proj.out_features,
            dropout=alignment.dropout.p,
        )
        for linear in (self.decoder.up_proj, self.decoder.down_proj):
            nn.init.normal_(linear.weight, std=initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., input_size) to its reconstruction, (..., input_size)."""
        return self.decoder(self.encoder(hidden_states))
