"""TALLForCausalLM: frozen translator encoder, trained adapters, frozen LLM, trained adapters, frozen translator decoder.

This folder is what travels to the Hub: flat files that import torch, transformers and each other, nothing else.
Stage numbers and section references are those of the TALL paper (arXiv 2506.05057).
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import can_return_tuple, logging

from .alignment_tall import DimensionAlignment
from .configuration_tall import TALLConfig
from .generation_tall import TALLTextMixin
from .marian_tall import build_source_decoder, build_target_encoder
from .parameters_tall import parameter_table


if TYPE_CHECKING:
    # A relative import makes `save_pretrained` copy the file: this one lets the pipeline travel with the model.
    from .pipeline_tall import TALLTextGenerationPipeline  # noqa: F401

logger = logging.get_logger(__name__)


class TALLPreTrainedModel(PreTrainedModel):
    """Weight initialisation, loading and the capabilities shared by TALL's modules."""

    config_class = TALLConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["MarianEncoderLayer", "MarianDecoderLayer"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """As in transformers, from safetensors only.

        Raises:
            ValueError: for `use_safetensors=False`.
            OSError: for a checkpoint without safetensors weights, or with corrupted ones.
        """
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError(
                f"A TALL is read from safetensors only: leave out `use_safetensors={kwargs['use_safetensors']}`."
            )
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        except OSError as error:
            if "model.safetensors" not in str(error):
                raise
            raise OSError(
                f"{pretrained_model_name_or_path} has no safetensors weights, and a TALL reads no others: pickled ones are "
                f"refused. Save the model again with `save_pretrained`. ({error})"
            ) from error
        except Exception as error:
            # The package of that error is not imported here: see the first lines of this file.
            if type(error).__name__ != "SafetensorError":
                raise
            raise OSError(
                f"The safetensors weights of {pretrained_model_name_or_path} are corrupted or incomplete ({error}). "
                "Download or save them again."
            ) from error

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, TALLEncoder):
            if module.gate is not None:
                init.constant_(module.gate, self.config.gate_init)
            if module.embedding_std is not None:
                init.constant_(module.embedding_std, _expected_embedding_std(self.config))
        elif isinstance(module, TALLForCausalLM):
            init.zeros_(module.final_logits_bias)


class TALLEncoder(TALLPreTrainedModel):
    """Stages 1 to 6: the source sentence and its translation, through the LLM, to what the HR→LR decoder reads."""

    def __init__(self, config: TALLConfig):
        super().__init__(config)
        translator = AutoModelForSeq2SeqLM.from_config(config.lr_hr_config)
        if config.translation_generation_config is not None:
            translator.generation_config = GenerationConfig.from_dict(dict(config.translation_generation_config))
        llm = AutoModel.from_config(config.llm_config)
        llm_size = llm.get_input_embeddings().embedding_dim
        source_size = config.lr_hr_config.d_model
        target_size = config.hr_lr_config.d_model

        self.translator = translator
        self.llm = llm
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

    def _alignment(self, input_size: int, output_size: int) -> DimensionAlignment:
        hidden_size = self.config.alignment_hidden_size or 2 * output_size
        return DimensionAlignment(input_size, output_size, hidden_size, self.config.alignment_dropout)

    def freeze_parts(self):
        """Take the pretrained parts, and the fixed position tables of the custom transformers, out of training."""
        _freeze(self.translator)
        _freeze(self.llm)
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
            `last_hidden_state` (batch, translation length, HR→LR width): each row's tokens first, padding behind.

        Raises:
            ValueError: without `llm_input_ids`, or for an input longer than a position table.
        """
        if llm_input_ids is None:
            raise ValueError(
                "`llm_input_ids`, the tokens of the translation, are missing. Make them together with the other inputs: "
                "`processor(text=texts, translations=model.translate(texts, processor), return_tensors='pt')`."
            )
        _check_length("input_ids", input_ids, self.config.max_source_length)
        _check_length("llm_input_ids", llm_input_ids, self.config.max_translation_length)
        source_mask, input_ids = squeeze_padding(attention_mask, input_ids)
        llm_mask, llm_input_ids = squeeze_padding(llm_attention_mask, llm_input_ids)

        embeddings = self.llm.get_input_embeddings()(llm_input_ids)
        if self.config.source_bridge == "none":
            source_states = None
        else:
            source_states = self.source_alignment(
                _in_dtype_of(self.source_alignment, self.encode_source(input_ids, source_mask))
            )
        llm_states = self.read_with_llm(embeddings, llm_mask, source_states, source_mask)
        return self.target_encoder(
            inputs_embeds=self.target_alignment(_in_dtype_of(self.target_alignment, llm_states)),
            attention_mask=llm_mask,
            output_attentions=self.config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=(
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
        )

    def encode_source(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Stage 1: (batch, source length) tokens to (batch, source length, source width) states."""
        encoder = self.translator.get_encoder()
        # Gradient checkpointing makes embeddings require a gradient, which a frozen encoder would carry for nothing.
        is_trained = any(parameter.requires_grad for parameter in encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and is_trained):
            return encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

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
            inputs_embeds=_in_dtype_of(self.source_decoder, embeddings),
            attention_mask=llm_mask,
            encoder_hidden_states=source_states,
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
        """Stages 3 and 4: the frozen LLM's states on the translation, (batch, translation length, LLM width)."""
        if self.config.source_bridge != "concat":
            inputs_embeds = _in_dtype_of(
                self.llm, self.bridge_source(embeddings, llm_mask, source_states, source_mask)
            )
            return self.llm(inputs_embeds=inputs_embeds, attention_mask=llm_mask, use_cache=False).last_hidden_state
        # Source and translation become one sequence without a hole, so that positions count tokens and not padding.
        joint_mask, joint = squeeze_padding(
            torch.cat([source_mask, llm_mask], dim=1),
            torch.cat([self.embedding_std.to(source_states.device) * source_states, embeddings], dim=1),
        )
        joint = _in_dtype_of(self.llm, joint)
        joint_states = self.llm(inputs_embeds=joint, attention_mask=joint_mask, use_cache=False).last_hidden_state
        columns = torch.arange(embeddings.shape[1], device=embeddings.device)
        columns = columns + source_mask.sum(dim=1, keepdim=True).long()
        return joint_states.gather(1, columns.unsqueeze(-1).expand(-1, -1, joint_states.shape[-1]))


class TALLForCausalLM(TALLTextMixin, TALLPreTrainedModel, GenerationMixin):
    """The whole of TALL: TALLEncoder (stages 1 to 6) and the frozen HR→LR decoder with its LM head (stage 7)."""

    _tied_weights_keys = {"lm_head.weight": "decoder.embed_tokens.weight"}
    # The Trainer hands over `num_items_in_batch`, so that accumulated small batches equal the big one.
    accepts_loss_kwargs = True

    def __init__(self, config: TALLConfig):
        if config.trainable_only:
            raise ValueError(
                "This checkpoint holds the trained adapters only, without the frozen parts they belong to. Load it with "
                "`tall_hf.load_light(folder)` from the tall-hf package, then save it whole with `save_pretrained`."
            )
        if config.lora:
            raise ValueError(
                "This checkpoint holds LoRA that is not merged into the frozen parts. Load it with "
                "`tall_hf.training.lora.load_lora(folder)` from the tall-hf package, then merge and save it."
            )
        config.validate_tall()  # `from_pretrained` may have been given another switch
        super().__init__(config)
        # The head is tied if the composite says so, whatever the translator by itself would do.
        config.hr_lr_config.tie_word_embeddings = config.tie_word_embeddings
        translator = AutoModelForSeq2SeqLM.from_config(config.hr_lr_config)
        self.encoder = TALLEncoder(config)
        self.decoder = translator.get_decoder()
        self.lm_head = translator.get_output_embeddings()
        # M2M100 has none; a TALL always has one, so that there is one way to read its vocabulary's size.
        bias = getattr(translator, "final_logits_bias", None)
        self.register_buffer("final_logits_bias", torch.zeros(1, self.lm_head.out_features) if bias is None else bias)

        self.freeze_parts()
        self.post_init()
        # Marian leaves its position tables out of a checkpoint; this one holds every part whole.
        self._keys_to_ignore_on_save = None

    def freeze_parts(self):
        """Take every pretrained part out of training; the adapters keep their `requires_grad`."""
        self.encoder.freeze_parts()
        _freeze(self.decoder)
        _freeze(self.lm_head)

    def tie_weights(self, missing_keys=None, recompute_mapping=True):
        super().tie_weights(missing_keys=missing_keys, recompute_mapping=recompute_mapping)
        if missing_keys is not None:
            # `from_pretrained` makes every parameter anew, trainable, and ends here.
            self.freeze_parts()

    def train(self, mode: bool = True):
        """Switch the trainable modules only: the frozen parts stay in evaluation mode, without dropout."""
        super().train(mode)
        for part in (self.encoder.translator, self.encoder.llm, self.decoder, self.lm_head):
            part.eval()
            if mode:
                # Gradient checkpointing looks at the layer's own flag; what is inside the layer stays in eval mode.
                for layer in part.modules():
                    if isinstance(layer, GradientCheckpointingLayer):
                        layer.training = True
        return self

    @property
    def dtype(self) -> torch.dtype:
        """That of the adapters. Frozen parts may be kept in a smaller one, to which a reload must not round them."""
        return self.encoder.target_alignment.up_proj.weight.dtype

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
        """
        if decoder_input_ids is None:
            raise ValueError(
                "`decoder_input_ids`, the start token and the text so far, are missing: "
                "`processor(text=..., translations=...)` makes them."
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
            llm_attention_mask = squeeze_padding(llm_attention_mask)[0]

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
            encoder_hidden_states=_in_dtype_of(self.decoder, encoder_outputs.last_hidden_state),
            encoder_attention_mask=llm_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden_states = decoder_outputs.last_hidden_state[:, kept]
        if labels is not None:
            labels = labels[:, kept]
            # Most positions of a target have no loss and the vocabulary is wide. In evaluation logits stay beside their
            # labels, for metrics; a compiled graph keeps its shapes.
            if self.training and not torch.compiler.is_compiling():
                learned = labels != -100
                hidden_states, labels = hidden_states[learned], labels[learned]
        logits = self.lm_head(hidden_states)
        logits = logits + self.final_logits_bias.to(logits.device)

        loss = None if labels is None else _label_loss(logits, labels, num_items_in_batch)
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
        _check_length("decoder_input_ids", input_ids, self.config.max_target_length, past_length)
        embeddings = self.decoder.get_input_embeddings()(input_ids)
        if attention_mask is None:
            return embeddings
        if attention_mask.shape != (input_ids.shape[0], past_length + length):
            raise ValueError(
                f"`decoder_attention_mask` of shape {tuple(attention_mask.shape)} does not fit: it covers cached and new "
                f"tokens, {(input_ids.shape[0], past_length + length)}."
            )
        columns = torch.arange(past_length, past_length + length, device=input_ids.device)
        rows = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
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


def squeeze_padding(attention_mask: torch.Tensor | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Move the padding of each row behind its tokens, keeping their order.

    Args:
        attention_mask: (batch, length), non-zero for tokens; all ones when None (then a tensor must be given).
        tensors: (batch, length) or (batch, length, width), moved alike.

    Returns:
        The moved mask, then the moved tensors.
    """
    if attention_mask is None:
        attention_mask = torch.ones(tensors[0].shape[:2], dtype=torch.long, device=tensors[0].device)
        return attention_mask, *tensors
    for tensor in tensors:
        if attention_mask.shape != tensor.shape[:2]:
            raise ValueError(
                f"An attention mask of shape {tuple(attention_mask.shape)} does not fit inputs of shape "
                f"{tuple(tensor.shape[:2])}; it needs one number for each token."
            )
    order = attention_mask.argsort(dim=1, descending=True, stable=True)
    moved = [attention_mask.gather(1, order)]
    for tensor in tensors:
        index = order if tensor.dim() == 2 else order.unsqueeze(-1).expand_as(tensor)
        moved.append(tensor.gather(1, index))
    return tuple(moved)


def _freeze(part: nn.Module):
    part.requires_grad_(False)
    for layer in part.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            # These layers keep their training flag (see `TALLForCausalLM.train`), and some apply dropout by it.
            for name in [
                name for name, value in vars(layer).items() if "dropout" in name and isinstance(value, float)
            ]:
                setattr(layer, name, 0.0)


def _in_dtype_of(part: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """States as `part` computes: the frozen parts may be kept in a dtype of their own."""
    # A replica of nn.DataParallel has no parameters; it computes as it is fed.
    return states.to(next((weight.dtype for weight in part.parameters() if weight.is_floating_point()), states.dtype))


def _label_loss(logits, labels, num_items_in_batch):
    if not torch.compiler.is_compiling() and not bool((labels != -100).any()):
        raise ValueError(
            "`labels` are -100 everywhere, so there is no position to learn from. Check the collator's loss positions "
            "and that no sentence lost its last word to truncation."
        )
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), labels.to(logits.device).flatten(), reduction=reduction
    )
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(loss.device)
    return loss if num_items_in_batch is None else loss / num_items_in_batch


def _check_length(name, input_ids, limit, past_length=0):
    length = input_ids.shape[1] + past_length
    if length == 0:
        raise ValueError(f"`{name}` has no tokens: its length is 0, at least 1 is needed.")
    if length > limit:
        raise ValueError(
            f"`{name}` reaches {length} tokens, but there are positions for {limit} only. Shorten the text, or let the "
            "processor truncate it (it does by default); when generating, ask for fewer new tokens."
        )


def _expected_embedding_std(config: TALLConfig) -> float:
    llm_config = config.llm_config.get_text_config()
    return getattr(llm_config, "initializer_range", None) or getattr(llm_config, "init_std", 1.0)  # OPT says init_std


TALLForCausalLM.register_for_auto_class("AutoModelForCausalLM")
