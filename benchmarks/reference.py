"""The authors' procedure, written plainly over a TALL's own weights: what every figure of benchmarks/speed.py is compared with.

As their public research code does it (TALL, arXiv 2506.05057): each sentence is translated by itself with beam search, again
in every epoch and again for every token that is written; the seven stages run over everything each time, nothing is kept from
one token to the next, and logits are computed at every position. Where they sample, the most probable token is taken here, so
that answers can be compared. The translator's own `generate` is transformers', with its cache, as theirs is.
"""

import torch
from torch.nn import functional

from tall_hf import TALLForCausalLM, TALLProcessor


@torch.no_grad()
def translate(model: TALLForCausalLM, processor: TALLProcessor, text: str) -> str:
    """One sentence, by the LR→HR translator's own generation settings."""
    inputs = processor.encode_source(text, return_tensors="pt").to(model.device)
    return processor.decode_translations(model.encoder.translator.generate(**inputs))[0]


def logits(
    model: TALLForCausalLM,
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    llm_input_ids: torch.LongTensor,
    llm_attention_mask: torch.Tensor,
    decoder_input_ids: torch.LongTensor,
) -> torch.Tensor:
    """The seven stages for a batch padded on the right: logits at all positions, (batch, target length, vocabulary).

    Raises:
        ValueError: the model's bridge is neither the paper's nor the gated one, or it has a switch the paper has not.
    """
    config, encoder = model.config, model.encoder
    if config.source_bridge not in ("marian", "gated") or config.source_fusion != "last" or config.look_ahead:
        raise ValueError(
            "The reference knows the bridges 'marian' and 'gated' without source fusion and look-ahead, got "
            f"{config.source_bridge!r}, {config.source_fusion!r} and {config.look_ahead}."
        )
    source_states = encoder.translator.get_encoder()(input_ids, attention_mask=attention_mask).last_hidden_state
    embeddings = encoder.llm.get_input_embeddings()(llm_input_ids)
    bridged = encoder.source_decoder(
        inputs_embeds=embeddings,
        attention_mask=llm_attention_mask,
        encoder_hidden_states=encoder.source_alignment(source_states),
        encoder_attention_mask=attention_mask,
        use_cache=False,
    ).last_hidden_state
    if config.source_bridge == "gated":
        bridged = embeddings + torch.tanh(encoder.gate) * encoder.embedding_std * bridged
    llm_states = encoder.llm(
        inputs_embeds=bridged, attention_mask=llm_attention_mask, use_cache=False
    ).last_hidden_state
    read = encoder.target_encoder(
        inputs_embeds=encoder.target_alignment(llm_states), attention_mask=llm_attention_mask
    ).last_hidden_state
    written = model.decoder(
        input_ids=decoder_input_ids,
        encoder_hidden_states=read,
        encoder_attention_mask=llm_attention_mask,
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(written) + model.final_logits_bias


@torch.no_grad()
def read(model: TALLForCausalLM, processor: TALLProcessor, text: str, translation: str) -> torch.Tensor:
    """One text and its translation, without padding: logits behind every token of the text, (target length, vocabulary)."""
    inputs = processor(text=text, translations=translation, return_tensors="pt").to(model.device)
    inputs.pop("decoder_attention_mask")
    return logits(model, **inputs)[0]


def next_token(model: TALLForCausalLM, processor: TALLProcessor, text: str) -> int:
    """Translate a text and read both: the token that is most probable behind it."""
    return int(read(model, processor, text, translate(model, processor, text))[-1].argmax())


def complete(model: TALLForCausalLM, processor: TALLProcessor, text: str, num_tokens: int) -> str:
    """Write `num_tokens` tokens behind a text, one at a time, each from the beginning."""
    for _ in range(num_tokens):
        token = next_token(model, processor, text)
        piece = processor.tokenizer.convert_ids_to_tokens(token)
        text = f"{text}{' ' if piece.startswith('▁') else ''}{processor.decode_target([token])}"
    return text


class Training:
    """The authors' training: AdamW on the adapters in the model's own precision, cross-entropy of the last token alone.

    Args:
        model: whose adapters are trained.
        learning_rate: constant here; theirs changes once an epoch.
    """

    def __init__(self, model: TALLForCausalLM, learning_rate: float = 5e-5):
        self.model = model
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=learning_rate)

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Learn a batch of `LastTokenCollator`, its translations made before; the loss."""
        batch = {name: tensor for name, tensor in batch.items() if name != "decoder_attention_mask"}
        labels = batch.pop("labels")
        every = logits(self.model, **batch)
        loss = functional.cross_entropy(every.view(-1, every.shape[-1]), labels.flatten(), ignore_index=-100)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()
