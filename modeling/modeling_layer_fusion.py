"""LayerFusionForCausalLM: a frozen LLM reads, in front of its own tokens, what a frozen multilingual encoder has read.

The model of "Utilizing Multilingual Encoders to Improve Large Language Models for Low-Resource Languages"
(arXiv 2508.09091), with LangBridge and MindMerger's mapping as settings. The LLM reads `[BOS][source][end][prompt][answer]`.
"""

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .configuration_layer_fusion import LayerFusionConfig
from .frozen_parts_tall import (
    FrozenPartsModel,
    build_part_model,
    check_length,
    check_overflow,
    in_dtype_of,
    label_loss,
    last_positions,
    squeeze_padding,
)
from .fusion_tall import build_source_fusion, encode_and_fuse
from .labels_layer_fusion import LabelScoringMixin


class LayerFusionForCausalLM(LabelScoringMixin, FrozenPartsModel, GenerationMixin):
    """A frozen encoder, a trained fusion of its layers, a trained mapping and end vector, and a frozen LLM with its head."""

    config_class = LayerFusionConfig
    base_model_prefix = "model"
    # The Trainer hands over `num_items_in_batch`, so that accumulated small batches equal the big one.
    accepts_loss_kwargs = True

    def __init__(self, config: LayerFusionConfig):
        self.check_whole(config)
        config.validate_layer_fusion()  # `from_pretrained` may have been given another switch
        super().__init__(config)
        self.llm = build_part_model("llm_config", AutoModelForCausalLM, config.llm_config)
        self.encoder = source_encoder(build_part_model("encoder_config", AutoModel, config.encoder_config))
        llm_size = self.llm.get_input_embeddings().embedding_dim
        self.source_fusion = build_source_fusion(config.source_fusion, config.encoder_layers, config.encoder_size)
        self.mapping = build_mapping(config.mapping_type, config.encoder_size, llm_size)
        self.end_vector = nn.Parameter(torch.empty(1, 1, llm_size))
        self.freeze_parts()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, LayerFusionForCausalLM):
            init.normal_(module.end_vector, std=self.config.end_vector_std)

    @property
    def frozen_parts(self) -> tuple[nn.Module, ...]:
        return self.encoder, self.llm

    @property
    def dtype(self) -> torch.dtype:
        """That of what is trained. Frozen parts may be kept in a smaller one, to which a reload must not round it."""
        return self.end_vector.dtype

    def resize_token_embeddings(self, *args, **kwargs):
        raise NotImplementedError(
            "The vocabularies are those of two frozen models, which cannot be resized. Resize the part's own checkpoint and "
            "compose again."
        )

    def get_input_embeddings(self):
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.llm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings):
        self.llm.set_output_embeddings(new_embeddings)

    def encode_source(
        self, source_input_ids: torch.LongTensor, source_attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the LLM reads of sources: the mapped states, then the end vector.

        Args:
            source_input_ids: tokens of the encoder, (batch, source length).
            source_attention_mask: 1 for tokens, 0 for padding on either side; all ones when not given.

        Returns:
            Vectors (batch, source length + 1, LLM width), each row's own first, and their mask.
        """
        if self.config.max_source_length is not None:
            check_length("source_input_ids", source_input_ids, self.config.max_source_length)
        mask, source_input_ids = squeeze_padding(source_attention_mask, source_input_ids)
        states = encode_and_fuse(self.encoder, self.source_fusion, source_input_ids, mask)
        vectors = self.mapping(in_dtype_of(self.mapping, states))
        # A column more, so that the end vector fits behind the longest row; behind a shorter one it takes padding's place.
        vectors = nn.functional.pad(vectors, (0, 0, 0, 1))
        mask = nn.functional.pad(mask.to(vectors.device), (1, 0), value=1)
        is_end = torch.arange(vectors.shape[1], device=vectors.device) == mask.sum(dim=1, keepdim=True) - 1
        return torch.where(is_end.unsqueeze(-1), self.end_vector.to(vectors), vectors), mask

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        mm_token_type_ids: torch.LongTensor | None = None,
        source_input_ids: torch.LongTensor | None = None,
        source_attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast:
        """Predict the LLM's next tokens from a source, in the encoder's tokens, and a prompt in its own.

        Args:
            input_ids: the LLM's tokens, (batch, length), with a place (any token) for each vector of the source.
            attention_mask: 1 for what the LLM reads, 0 for padding, on either side; all ones when not given.
            mm_token_type_ids: 1 where a vector of the source stands, 0 elsewhere; (batch, length).
            source_input_ids: tokens of the encoder, (batch, source length); not needed once they are in the cache.
            source_attention_mask: 1 for source tokens, 0 for padding, on either side; all ones when not given.
            position_ids: counted from each row's first token when not given.
            past_key_values: the LLM's cache.
            inputs_embeds: instead of `input_ids`.
            labels: as `input_ids`, -100 where there is no loss; the logits of a position predict the next label.
            use_cache: whether to return a cache; never in training.
            logits_to_keep: compute logits for the last n positions (0: all), or for the given positions; not read with labels.
            num_items_in_batch: what the summed loss is divided by, instead of the number of labels.
            output_attentions, output_hidden_states: of the LLM.

        Returns:
            `CausalLMOutputWithPast` with logits (batch, kept positions, LLM vocabulary); in training mode with labels only those
            of the positions before one.

        Raises:
            ValueError: there is no place for a vector of the source, or a place without one; or labels are all -100.
            FloatingPointError: in evaluation mode, for an overflow in float16.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either `input_ids` or `inputs_embeds`.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if source_input_ids is not None:
            inputs_embeds = self._put_source(
                inputs_embeds, mm_token_type_ids, *self.encode_source(source_input_ids, source_attention_mask)
            )
        if self.config.max_llm_length is not None:
            past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
            check_length("input_ids", inputs_embeds[..., 0], self.config.max_llm_length, past_length)
        if position_ids is None and attention_mask is not None:
            # Padding on the left would otherwise count.
            position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        if labels is not None:
            # The vocabulary is wide, and answers are short: in training only positions before a label reach the head.
            targets = labels[:, 1:]
            # A compiled graph keeps its shapes.
            few = self.training and not torch.compiler.is_compiling()
            kept = (targets != -100).any(dim=0).nonzero().flatten() if few else None
            logits_to_keep = 0 if kept is None else kept
        outputs = self.llm(
            inputs_embeds=in_dtype_of(self.llm, inputs_embeds),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=False if self.training else use_cache,
            logits_to_keep=last_positions(logits_to_keep, inputs_embeds.shape[1], inputs_embeds.device),
            output_attentions=self.config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=(
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
        )
        if not self.training:  # the Trainer tells of a loss that is not finite, with its step
            check_overflow(outputs.logits)
        loss = None
        if labels is not None:
            logits = outputs.logits[:, :-1] if kept is None else outputs.logits
            targets = targets if kept is None else targets[:, kept]
            loss = label_loss(logits.flatten(0, 1), targets, num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _put_source(self, inputs_embeds, mm_token_type_ids, vectors, mask):
        """The embeddings with each row's vectors of its source where its places for them are."""
        if mm_token_type_ids is None or mm_token_type_ids.shape != inputs_embeds.shape[:2]:
            raise ValueError(
                "`mm_token_type_ids` must say, for each of `input_ids`, whether a vector of the source stands there (1) or a "
                "token of the LLM (0); the processor makes them."
            )
        places = mm_token_type_ids == 1
        wanted, found = mask.sum(dim=1), places.sum(dim=1)
        if not torch.compiler.is_compiling() and not torch.equal(wanted.to(found.device), found):
            raise ValueError(
                f"Rows have {found.tolist()} places for vectors of the source, and their sources, with the end vector, "
                f"have {wanted.tolist()}; each needs as many as it has source tokens, and one."
            )
        # Both in the order of rows, and in a row from left to right.
        places = places.unsqueeze(-1).to(inputs_embeds.device)
        return inputs_embeds.masked_scatter(places, vectors[mask.bool()].to(inputs_embeds))

    def prepare_inputs_for_generation(self, input_ids, is_first_iteration=False, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            # What the source gave is in the cache.
            for name in ("source_input_ids", "source_attention_mask"):
                inputs.pop(name, None)
        return inputs

    def parameter_table(self) -> list[tuple[str, int, int]]:
        """Rows (module, parameters, of them trained), the last one being the sum; works on the meta device."""
        fusion = [] if self.source_fusion is None else [("source fusion", self.source_fusion)]
        modules = [("encoder", self.encoder), *fusion, ("mapping", self.mapping), ("LLM", self.llm)]
        rows = [(name, *_count(module.parameters())) for name, module in modules]
        rows.insert(-1, ("end vector", *_count([self.end_vector])))
        return [*rows, ("total", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))]


def source_encoder(model: nn.Module) -> nn.Module:
    """What reads the source: an encoder-decoder's encoder, or the model, if it is an encoder."""
    if model.config.is_encoder_decoder:
        return model.get_encoder()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # it reads one token alone, and is not asked
    return model


def build_mapping(kind: str, input_size: int, output_size: int) -> nn.Module:
    """The module of a `mapping_type`: the paper's linear map, or MindMerger's MLP."""
    if kind == "mlp":
        return nn.Sequential(nn.Linear(input_size, 2 * input_size), nn.ReLU(), nn.Linear(2 * input_size, output_size))
    return nn.Linear(input_size, output_size)


def _count(parameters) -> tuple[int, int]:
    parameters = list(parameters)
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


LayerFusionForCausalLM.register_for_auto_class("AutoModelForCausalLM")
