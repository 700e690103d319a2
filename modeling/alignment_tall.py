"""Dimension alignment: the small trained MLP that carries hidden states from one model's width to another's."""

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
