"""TALLForCausalLM: frozen translator encoder, trained adapters, frozen LLM, trained adapters, frozen translator decoder.

This folder is what travels to the Hub: flat files that import torch, transformers and each other, and no other library.
Stage numbers and section references are those of the TALL paper (arXiv 2506.05057).
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, GenerationMixin
from transformers import initialization as init
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import can_return_tuple

from .configuration_tall import TALLConfig
from .encoder_tall import TALLEncoder, TALLPreTrainedModel
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
from .generation_tall import TALLTextMixin
from .look_ahead_tall import extended_mask
from .parameters_tall import parameter_table


if TYPE_CHECKING:
    # A relative import makes `save_pretrained` copy the file: this one lets the pipeline travel with the model.
    from .pipeline_tall import TALLTextGenerationPipeline  # noqa: F401


class TALLForCausalLM(TALLTextMixin, TALLPreTrainedModel, GenerationMixin):
    """The whole of TALL: TALLEncoder (stages 1 to 6) and the frozen HR→LR decoder with its LM head (stage 7)."""

    _tied_weights_keys = {"lm_head.weight": "decoder.embed_tokens.weight"}
    # The Trainer hands over `num_items_in_batch`, so that accumulated small batches equal the big one.
    accepts_loss_kwargs = True

    def __init__(self, config: TALLConfig):
        self.check_whole(config)
        config.validate_tall()  # `from_pretrained` may have been given another switch
        super().__init__(config)
        # The head is tied if the composite says so, whatever the translator by itself would do.
        config.hr_lr_config.tie_word_embeddings = config.tie_word_embeddings
        translator = build_part_model("hr_lr_config", AutoModelForSeq2SeqLM, config.hr_lr_config)
        # Decoder and head come before the encoder: transformers' `device_map="auto"` takes parameters to be tied to the
        # module it places if the module's name is anywhere in theirs, as in "encoder.translator.model.decoder", and
        # then expects the others not to be placed yet.
        self.decoder = translator.get_decoder()
        self.lm_head = translator.get_output_embeddings()
        self.encoder = TALLEncoder(config)
        # M2M100 has none; a TALL always has one, so that there is one way to read its vocabulary's size.
        bias = getattr(translator, "final_logits_bias", None)
        self.register_buffer("final_logits_bias", torch.zeros(1, self.lm_head.out_features) if bias is None else bias)

        self.freeze_parts()
        self.post_init()
        # Marian leaves its position tables out of a checkpoint; this one holds every part whole.
        self._keys_to_ignore_on_save = None

    @staticmethod
    def check_whole(config):
        FrozenPartsModel.check_whole(config)
        if config.lora:
            raise ValueError(
                "This checkpoint holds LoRA that is not merged into the frozen parts. Load it with "
                "`tall_hf.training.lora.load_lora(folder)` from the tall-hf package, then merge and save it."
            )

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, TALLForCausalLM):
            init.zeros_(module.final_logits_bias)

    @property
    def frozen_parts(self) -> tuple[nn.Module, ...]:
        return (*self.encoder.frozen_parts, self.decoder, self.lm_head)

    @property
    def frozen_prefixes(self) -> tuple[str, ...]:
        # The translator's bias on its own logits is no module's.
        return (*super().frozen_prefixes, "final_logits_bias")

    def freeze_parts(self):
        super().freeze_parts()
        self.encoder.freeze_parts()

    @property
    def dtype(self) -> torch.dtype:
        """That of the adapters. Frozen parts may be kept in a smaller one, to which a reload must not round them."""
        return self.encoder.target_encoder.layers[0].fc1.weight.dtype

    def get_encoder(self, modality=None):
        return self.encoder

    def get_decoder(self):
        return self.decoder

    def get_input_embeddings(self):
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, new_embeddings):
        self.lm_head = new_embeddings

    def resize_token_embeddings(self, *args, **kwargs):
        raise NotImplementedError(
            "A TALL reads and writes with the vocabularies of three frozen models, which cannot be resized. Resize the "
            "part's own checkpoint and compose again."
        )

    @property
    def dummy_inputs(self):
        ids = torch.ones((1, 2), dtype=torch.long, device=self.device)
        return {"input_ids": ids, "llm_input_ids": ids, "decoder_input_ids": ids}

    @staticmethod
    def create_masks_for_generate(attention_mask: torch.Tensor | None, **kwargs) -> torch.Tensor | None:
        """The mask as it is, (batch, length), where `generate` would make a 4-D one for a static cache.

        Positions are counted in it, and the decoder makes its own of it.
        """
        return attention_mask

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        llm_input_ids: torch.LongTensor | None = None,
        llm_attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqLMOutput:
        """Predict the low-resource text from its own prefix, its source sentence and the translation of that.

        Args:
            input_ids: source tokens of the LR→HR translator, (batch, source length).
            attention_mask: 1 for source tokens, 0 for padding, on either side; all ones when not given.
            llm_input_ids: tokens of the translation for the LLM, (batch, translation length).
            llm_attention_mask: as `attention_mask`, for the translation.
            decoder_input_ids: start token(s) and prefix in the HR→LR translator's tokens, (batch, target length).
            decoder_attention_mask: 1 for tokens, 0 for padding, on either side, over cached and new tokens; all ones
                when not given. Without it a batch must hold no padding: Marian's padding token is also its start token.
            labels: the token after each of `decoder_input_ids`, -100 where there is no loss; (batch, target length).
            encoder_outputs: what `encoder` returned; with it `input_ids` and `llm_input_ids` are not read.
            past_key_values: the decoder's cache.
            use_cache: whether to return a cache; never in training or with labels.
            logits_to_keep: compute logits for the last n positions (0: all), or for the given positions.
            num_items_in_batch: what the summed loss is divided by, instead of the number of labels.
            output_attentions: return the attentions of custom encoder 2 and of the decoder.
            output_hidden_states: return the hidden states of custom encoder 2 and of the decoder.

        Returns:
            `Seq2SeqLMOutput` with logits (batch, kept positions, target vocabulary); in training mode with labels only
            those of the positions that have a loss, (labels that are not -100, target vocabulary). A loss computed
            outside, as the Trainer's label smoothing is, passes no labels and so gets logits for every position.

        Raises:
            ValueError: for missing inputs, an input longer than a position table, or labels that are all -100.
            FloatingPointError: in evaluation mode, for an overflow in float16.
        """
        if decoder_input_ids is None:
            raise ValueError(
                "`decoder_input_ids`, the start token and the text so far, are missing: `processor(text=..., translations=...)` "
                "makes them, and for training, with labels beside them, tall_hf's `LastTokenCollator`."
            )
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("Pass either `input_ids` and `llm_input_ids`, or `encoder_outputs`.")
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                llm_input_ids=llm_input_ids,
                llm_attention_mask=llm_attention_mask,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        if llm_attention_mask is not None:
            # The encoder's states stand in the order of `squeeze_padding`: tokens first.
            llm_attention_mask = extended_mask(squeeze_padding(llm_attention_mask)[0], self.config.look_ahead)

        use_cache = self.config.use_cache if use_cache is None else use_cache
        if labels is not None or self.training:
            use_cache = False
        if use_cache and past_key_values is None:
            decoder_config = self.config.get_text_config(decoder=True)
            past_key_values = EncoderDecoderCache(
                DynamicCache(config=decoder_config), DynamicCache(config=decoder_config)
            )

        decoder_outputs = self.decoder(
            inputs_embeds=self._embed_target(decoder_input_ids, decoder_attention_mask, past_key_values),
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=in_dtype_of(self.decoder, encoder_outputs.last_hidden_state),
            encoder_attention_mask=llm_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        hidden_states = decoder_outputs.last_hidden_state
        kept = last_positions(logits_to_keep, hidden_states.shape[1], hidden_states.device)
        if isinstance(kept, torch.Tensor):
            hidden_states = hidden_states[:, kept]
            labels = None if labels is None else labels[:, kept.to(labels.device)]
        # Most positions of a target have no loss and the vocabulary is wide. In evaluation logits stay beside their labels,
        # for metrics; a compiled graph keeps its shapes.
        if labels is not None and self.training and not torch.compiler.is_compiling():
            learned = labels != -100
            hidden_states, labels = hidden_states[learned], labels[learned]
        logits = self.lm_head(hidden_states)
        if not self.training:  # the Trainer tells of a loss that is not finite, with its step
            check_overflow(logits)
        logits = logits + self.final_logits_bias.to(logits.device)

        loss = None if labels is None else label_loss(logits, labels, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def _embed_target(self, input_ids, attention_mask, past_key_values):
        """Embed the prefix such that each row counts its positions from its own first token.

        The translators' decoders number positions by column, which is wrong for a row padded on the left, and add the
        position to the embedding. So the difference is put into the embedding: zero, exactly, where nothing is padded.
        """
        past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
        length = input_ids.shape[1]
        # A static cache counts in a tensor, and to read it would break a compiled graph.
        if not torch.compiler.is_compiling():
            past_length = int(past_length)
            check_length("decoder_input_ids", input_ids, self.config.max_target_length, past_length)
            if attention_mask is not None and attention_mask.shape != (input_ids.shape[0], past_length + length):
                raise ValueError(
                    f"`decoder_attention_mask` of shape {tuple(attention_mask.shape)} does not fit: it covers cached and new "
                    f"tokens, {(input_ids.shape[0], past_length + length)}."
                )
        embeddings = self.decoder.get_input_embeddings()(input_ids)
        if attention_mask is None:
            return embeddings
        columns = torch.arange(length, device=input_ids.device) + past_length
        rows = ((attention_mask != 0).long().cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
        correction = self._target_positions(rows) - self._target_positions(columns)
        # Marian multiplies the embeddings it is given by its scale before it adds the positions.
        scale = self.decoder.embed_scale if self.config.hr_lr_config.model_type == "marian" else 1.0
        return embeddings + (correction / scale).to(embeddings)

    def _target_positions(self, positions: torch.LongTensor) -> torch.Tensor:
        """Rows of the decoder's position table, as its own family looks them up."""
        table = self.decoder.embed_positions
        if self.config.hr_lr_config.model_type == "m2m_100":
            rows, offset = table.weights, table.padding_idx + 1
        elif self.config.hr_lr_config.model_type == "mbart":
            rows, offset = table.weight, table.offset
        else:
            rows, offset = table.weight, 0
        # With a device map the table may lie elsewhere than the ids.
        return rows[positions.to(rows.device) + offset]

    def parameter_table(self) -> list[tuple[str, int, int, int]]:
        """Count parameters as the paper's Tables 2 to 4 do; works on the meta device.

        Returns:
            Rows (module, total, trainable as the paper counts, requires_grad). The paper counts the fixed position
            tables of the two custom transformers as trained. The tied LM head is listed but not in the total, and
            neither is the half of the LR→HR translator that only translates, which stands below it.
        """
        return parameter_table(self)


TALLForCausalLM.register_for_auto_class("AutoModelForCausalLM")
