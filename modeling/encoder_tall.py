"""TALLEncoder: stages 1 to 6, from a source sentence and its translation to what the HR→LR decoder reads."""

import torch
from torch import nn
from transformers import AutoModel, AutoModelForSeq2SeqLM, GenerationConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import can_return_tuple

from .alignment_tall import build_alignment
from .configuration_tall import TALLConfig
from .frozen_parts_tall import FrozenPartsModel, build_part_model, check_length, in_dtype_of, squeeze_padding
from .fusion_tall import build_source_fusion, encode_and_fuse
from .look_ahead_tall import extended_mask, write_ahead
from .marian_tall import build_source_decoder, build_target_encoder


class TALLPreTrainedModel(FrozenPartsModel):
    """Weight initialisation and the names shared by TALL's modules."""

    config_class = TALLConfig
    base_model_prefix = "model"
    _no_split_modules = ["MarianEncoderLayer", "MarianDecoderLayer"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, TALLEncoder):
            if module.gate is not None:
                init.constant_(module.gate, self.config.gate_init)
            if module.embedding_std is not None:
                init.constant_(module.embedding_std, _expected_embedding_std(self.config))


class TALLEncoder(TALLPreTrainedModel):
    """Stages 1 to 6: the source sentence and its translation, through the LLM, to what the HR→LR decoder reads."""

    def __init__(self, config: TALLConfig):
        super().__init__(config)
        translator = build_part_model("lr_hr_config", AutoModelForSeq2SeqLM, config.lr_hr_config)
        if config.translation_generation_config is not None:
            settings = GenerationConfig.from_dict(dict(config.translation_generation_config))
            # Behind its last position a translator can write nothing more.
            positions = config.lr_hr_config.max_position_embeddings
            if settings.max_length is not None:
                settings.max_length = min(settings.max_length, positions)
            if settings.max_new_tokens is not None:
                settings.max_new_tokens = min(settings.max_new_tokens, positions)
            translator.generation_config = settings
        llm = build_part_model("llm_config", AutoModel, config.llm_config)
        llm_size = llm.get_input_embeddings().embedding_dim
        source_size = config.lr_hr_config.d_model
        target_size = config.hr_lr_config.d_model

        self.translator = translator
        self.llm = llm
        self.source_fusion = build_source_fusion(config.source_fusion, config.lr_hr_config.encoder_layers, source_size)
        self.source_alignment = None
        self.source_decoder = None
        # One element, not a scalar: sharded training cannot split a tensor without dimensions.
        self.gate = nn.Parameter(torch.zeros(1)) if config.source_bridge == "gated" else None
        # The spread of the LLM's embeddings, so that what a bridge adds has a size the LLM was pretrained on. Composing
        # measures it; a model without pretrained parts has what the LLM is initialised with.
        scaled = config.source_bridge in ("gated", "concat")
        embedding_std = torch.full((1,), _expected_embedding_std(config)) if scaled else None
        self.register_buffer("embedding_std", embedding_std)
        if config.source_bridge != "none":
            self.source_alignment = self._alignment(source_size, llm_size)
        if config.source_bridge in ("marian", "gated"):
            self.source_decoder = build_source_decoder(config, llm_size)
        self.target_alignment = self._alignment(llm_size, target_size)
        self.target_encoder = build_target_encoder(config)

        self.freeze_parts()
        self.post_init()

    def _alignment(self, input_size: int, output_size: int) -> nn.Module:
        hidden_size = self.config.alignment_hidden_size or 2 * output_size
        return build_alignment(
            self.config.alignment_type, input_size, output_size, hidden_size, self.config.alignment_dropout
        )

    @property
    def adapters(self) -> tuple[nn.Module, ...]:
        """The trained modules, of those that there are; the gate is a parameter beside them."""
        found = (
            self.source_fusion,
            self.source_alignment,
            self.source_decoder,
            self.target_alignment,
            self.target_encoder,
        )
        return tuple(adapter for adapter in found if adapter is not None)

    @property
    def frozen_parts(self) -> tuple[nn.Module, ...]:
        return self.translator, self.llm

    def freeze_parts(self):
        """Take the pretrained parts, and the fixed position tables of the custom transformers, out of training."""
        super().freeze_parts()
        self.target_encoder.embed_positions.requires_grad_(False)
        if self.source_decoder is not None:
            self.source_decoder.embed_positions.requires_grad_(False)

    def get_input_embeddings(self):
        return self.translator.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.translator.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        llm_input_ids: torch.LongTensor | None = None,
        llm_attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput:
        """Encode source sentences and their translations.

        Args:
            input_ids: source tokens of the LR→HR translator, (batch, source length).
            attention_mask: 1 for tokens, 0 for padding on either side; all ones when not given.
            llm_input_ids: tokens of the translation for the LLM, (batch, translation length).
            llm_attention_mask: as `attention_mask`.
            output_attentions: return custom encoder 2's self-attentions.
            output_hidden_states: return custom encoder 2's hidden states, its input first.

        Returns:
            `last_hidden_state` (batch, translation length + `look_ahead`, HR→LR width): each row's tokens first, padding behind.

        Raises:
            ValueError: without `llm_input_ids`, or for an input longer than a position table.
        """
        if llm_input_ids is None:
            raise ValueError(
                "`llm_input_ids`, the tokens of the translation, are missing. Make them together with the other inputs: "
                "`processor(text=texts, translations=model.translate(texts, processor), return_tensors='pt')`."
            )
        check_length("input_ids", input_ids, self.config.max_source_length)
        check_length("llm_input_ids", llm_input_ids, self.config.max_translation_length)
        source_mask, input_ids = squeeze_padding(attention_mask, input_ids)
        llm_mask, llm_input_ids = squeeze_padding(llm_attention_mask, llm_input_ids)

        embeddings = self.llm.get_input_embeddings()(llm_input_ids)
        if self.config.source_bridge == "none":
            source_states = None
        else:
            source_states = self.source_alignment(
                in_dtype_of(self.source_alignment, self.encode_source(input_ids, source_mask))
            )
        llm_states = self.read_with_llm(embeddings, llm_mask, source_states, source_mask)
        return self.target_encoder(
            inputs_embeds=in_dtype_of(
                self.target_encoder, self.target_alignment(in_dtype_of(self.target_alignment, llm_states))
            ),
            attention_mask=extended_mask(llm_mask, self.config.look_ahead),
            output_attentions=self.config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=(
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
        )

    def encode_source(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Stage 1 and the fusion: (batch, source length) tokens to (batch, source length, source width) states."""
        return encode_and_fuse(self.translator.get_encoder(), self.source_fusion, input_ids, attention_mask)

    def bridge_source(
        self,
        embeddings: torch.Tensor,
        llm_mask: torch.Tensor,
        source_states: torch.Tensor | None,
        source_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Stage 3: the LLM's input, (batch, translation length, LLM width), for every bridge but `"concat"`."""
        if self.config.source_bridge == "none":
            return embeddings
        decoded = self.source_decoder(
            inputs_embeds=in_dtype_of(self.source_decoder, embeddings),
            attention_mask=llm_mask,
            encoder_hidden_states=in_dtype_of(self.source_decoder, source_states),
            encoder_attention_mask=source_mask,
            use_cache=False,
        ).last_hidden_state
        if self.config.source_bridge == "gated":
            return embeddings + (torch.tanh(self.gate) * self.embedding_std).to(decoded.device) * decoded
        return decoded

    def read_with_llm(
        self,
        embeddings: torch.Tensor,
        llm_mask: torch.Tensor,
        source_states: torch.Tensor | None,
        source_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Stages 3 and 4: the frozen LLM's states on the translation and on `look_ahead` tokens that it goes on with.

        They are (batch, translation length + `look_ahead`, LLM width), each row's own first.
        """
        count = self.config.look_ahead
        if self.config.source_bridge != "concat":
            inputs_embeds = in_dtype_of(self.llm, self.bridge_source(embeddings, llm_mask, source_states, source_mask))
            inputs_embeds, llm_mask = write_ahead(self.llm, inputs_embeds, llm_mask, count)
            return self.llm(inputs_embeds=inputs_embeds, attention_mask=llm_mask, use_cache=False).last_hidden_state
        # Source and translation become one sequence without a hole, so that positions count tokens and not padding.
        joint_mask, joint = squeeze_padding(
            torch.cat([source_mask, llm_mask], dim=1),
            torch.cat([self.embedding_std.to(source_states.device) * source_states, embeddings], dim=1),
        )
        joint, joint_mask = write_ahead(self.llm, in_dtype_of(self.llm, joint), joint_mask, count)
        joint_states = self.llm(inputs_embeds=joint, attention_mask=joint_mask, use_cache=False).last_hidden_state
        columns = torch.arange(embeddings.shape[1] + count, device=embeddings.device)
        columns = columns + source_mask.sum(dim=1, keepdim=True).long()
        return joint_states.gather(1, columns.unsqueeze(-1).expand(-1, -1, joint_states.shape[-1]))


def _expected_embedding_std(config: TALLConfig) -> float:
    llm_config = config.llm_config.get_text_config()
    return getattr(llm_config, "initializer_range", None) or getattr(llm_config, "init_std", 1.0)  # OPT says init_std
