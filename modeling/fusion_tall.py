"""Source fusion: how the layers of a frozen source encoder become one state for each token.

Layers are numbered from the first; the embedding layer is not among them. Formulas and starting values are those of "Utilizing
Multilingual Encoders to Improve Large Language Models for Low-Resource Languages" (arXiv 2508.09091). Layers are mixed as
they come: an encoder that normalises only its last layer (NLLB, T5) gives layers of different sizes.
"""

import abc
import math

import torch
from torch import nn
from transformers import initialization as init


class SourceFusion(nn.Module, abc.ABC):
    """A weighted mean of each token's states over the layers; the kinds differ in where the weights come from."""

    @abc.abstractmethod
    def layer_weights(self, layers: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """(batch, length, layers) weights in float32 that sum to 1 for each token; `layers` as in `forward`."""

    def forward(self, layers: tuple[torch.Tensor, ...], attention_mask: torch.Tensor) -> torch.Tensor:
        """Mix the layers' states.

        Args:
            layers: of each layer (batch, length, width).
            attention_mask: (batch, length), 0 for padding, which becomes zero.

        Returns:
            (batch, length, width).
        """
        weights = self.layer_weights(layers).to(layers[0].dtype)
        mixed = torch.einsum("bsl,bsld->bsd", weights, torch.stack(layers, dim=2))
        return mixed * attention_mask.unsqueeze(-1).to(mixed.dtype)


class GlobalSoftmaxFusion(SourceFusion):
    """One weight a layer, the same for every token: softmax((100 + 1e5·t)·a) with learned a and t ("Global Softmax").

    At the start all layers weigh the same. The temperature makes the logits learn about a hundred times as fast.

    Args:
        num_layers: layers of the encoder.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        self.layer_logits = nn.Parameter(torch.empty(num_layers))
        self.temperature = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        init.constant_(self.layer_logits, 3e-5)
        init.constant_(self.temperature, 1e-5)

    def layer_weights(self, layers: tuple[torch.Tensor, ...]) -> torch.Tensor:
        logits = (100.0 + 1e5 * self.temperature.float()) * self.layer_logits.float()
        return logits.softmax(dim=-1).expand(*layers[0].shape[:2], -1)


class TokenSoftmaxFusion(SourceFusion):
    """Weights of each token's own, from a transformer layer over the token's states of all layers ("Transformer Softmax").

    The layer reads a learned first state and, for each encoder layer, the token's state there plus a learned position; what
    it makes of the first state gives the weights.

    Args:
        num_layers: layers of the encoder.
        width: of its states.
    """

    def __init__(self, num_layers: int, width: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, width))
        self.layer_positions = nn.Parameter(torch.empty(num_layers, width))
        self.mixer = nn.TransformerEncoderLayer(width, nhead=1, dim_feedforward=2048, dropout=0.1, batch_first=True)
        self.layer_scores = nn.Linear(width, num_layers)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        init.zeros_(self.query)
        init.normal_(self.layer_positions)
        # As torch starts linear maps; transformers would give them a range of its own.
        attention_output = self.mixer.self_attn.out_proj
        for linear in (self.mixer.linear1, self.mixer.linear2, attention_output, self.layer_scores):
            bound = 1 / math.sqrt(linear.in_features)
            init.uniform_(linear.weight, -bound, bound)
            init.uniform_(linear.bias, -bound, bound)
        init.zeros_(attention_output.bias)

    def layer_weights(self, layers: tuple[torch.Tensor, ...]) -> torch.Tensor:
        states = torch.stack(layers, dim=2)
        batch, length, _, width = states.shape
        rows = (states + self.layer_positions).flatten(0, 1)
        first = self._mix_into_first(self.query.expand(len(rows), 1, width), rows)
        return self.layer_scores(first).float().softmax(dim=-1).view(batch, length, -1)

    def _mix_into_first(self, first: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What the transformer layer makes of `first` (tokens, 1, width) beside `rows` (tokens, layers, width).

        As `self.mixer` of both in a row, at the first position; nothing reads the others, which are most of the work.
        """
        mixer = self.mixer
        read = torch.cat([first, rows], dim=1)
        attended, _ = mixer.self_attn(first, read, read, need_weights=False)
        first = mixer.norm1(first + mixer.dropout1(attended))
        widened = mixer.dropout(mixer.activation(mixer.linear1(first)))
        return mixer.norm2(first + mixer.dropout2(mixer.linear2(widened)))


def build_source_fusion(kind: str, num_layers: int, width: int) -> SourceFusion | None:
    """The module of a `source_fusion` setting; None for "last", which reads the last layer and learns nothing."""
    if kind == "global_softmax":
        return GlobalSoftmaxFusion(num_layers)
    if kind == "token_softmax":
        return TokenSoftmaxFusion(num_layers, width)
    return None


def encode_layers(
    encoder: nn.Module, input_ids: torch.LongTensor, attention_mask: torch.Tensor, every_layer: bool
) -> tuple[torch.Tensor, ...]:
    """States of a source encoder, of each layer (batch, length, width): of every one from the first, or of the last alone.

    The last one is as the encoder gives it, normalised if it does. A frozen encoder keeps no graph.
    """
    # Gradient checkpointing makes embeddings require a gradient, which a frozen encoder would carry for nothing.
    is_trained = any(parameter.requires_grad for parameter in encoder.parameters())
    with torch.set_grad_enabled(torch.is_grad_enabled() and is_trained):
        outputs = encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=every_layer)
    return (*(outputs.hidden_states[1:-1] if every_layer else ()), outputs.last_hidden_state)


def encode_and_fuse(
    encoder: nn.Module, fusion: SourceFusion | None, input_ids: torch.LongTensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """What a source encoder has read, (batch, length, width): its last layer without a fusion."""
    layers = encode_layers(encoder, input_ids, attention_mask, every_layer=fusion is not None)
    if fusion is None:
        return layers[-1]
    dtype = next(weight.dtype for weight in fusion.parameters())
    return fusion(tuple(states.to(dtype) for states in layers), attention_mask)
