"""A TALL written a second time: plain torch for the adapters, the original checkpoints for the frozen parts, one row."""

import math

import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForSeq2SeqLM


ACTIVATIONS = {"relu": functional.relu, "gelu": functional.gelu, "swish": functional.silu}


class Reference:
    """The seven stages for one unpadded row, from the parts' folders and the weights of the adapters.

    Args:
        folders: the parts, as `compose` takes them.
        model: the TALL whose trainable weights are used.
    """

    def __init__(self, folders, model):
        self.lr_hr = AutoModelForSeq2SeqLM.from_pretrained(folders["lr_hr"]).eval()
        self.llm = AutoModel.from_pretrained(folders["llm"]).eval()
        self.hr_lr = AutoModelForSeq2SeqLM.from_pretrained(folders["hr_lr"]).eval()
        self.bridge = model.config.source_bridge
        self.weights = {name: p.detach() for name, p in model.encoder.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def __call__(self, source, translation, prefix):
        """Logits (prefix length, vocabulary) for lists of token ids."""
        states = self.encode(source, translation)
        decoder_input_ids = torch.tensor([prefix])
        encoder_outputs = (states.unsqueeze(0),)
        return self.hr_lr(encoder_outputs=encoder_outputs, decoder_input_ids=decoder_input_ids).logits[0]

    @torch.no_grad()
    def encode(self, source, translation):
        """Stages 1 to 6: (translation length, HR→LR width)."""
        embeddings = self.embed(translation)
        memory = None if self.bridge == "none" else self.align("source_alignment", self.read_source(source))
        llm_states = self.think(self.bridge_source(embeddings, memory))[-len(embeddings) :]
        aligned = self.align("target_alignment", llm_states)
        # Unlike its decoder, Marian's encoder does not scale the embeddings it is handed.
        config = self.hr_lr.config
        activation = ACTIVATIONS[config.activation_function]
        return self.layers("target_encoder", aligned, None, config.encoder_attention_heads, activation)

    def embed(self, translation):
        return self.llm.get_input_embeddings()(torch.tensor(translation))

    def read_source(self, source):
        return self.lr_hr.get_encoder()(torch.tensor([source])).last_hidden_state[0]

    def think(self, inputs_embeds):
        return self.llm(inputs_embeds=inputs_embeds.unsqueeze(0)).last_hidden_state[0]

    def bridge_source(self, embeddings, memory):
        """Stage 3: what the LLM is fed."""
        if self.bridge == "none":
            return embeddings
        spread = self.llm.get_input_embeddings().weight.float().std()
        if self.bridge == "concat":
            return torch.cat([spread * memory, embeddings])
        decoded = self.decode_source(embeddings, memory)
        if self.bridge == "marian":
            return decoded
        return embeddings + torch.tanh(self.weights["gate"]) * spread * decoded

    def decode_source(self, embeddings, memory):
        """Custom decoder 1: Marian scales the queries it is handed by the root of their width."""
        queries = embeddings * math.sqrt(embeddings.shape[-1])
        return self.layers(
            "source_decoder", queries, memory, self.lr_hr.config.decoder_attention_heads, functional.gelu
        )

    def align(self, name, states):
        """Linear, LayerNorm, GELU, Linear, LayerNorm."""
        states = functional.gelu(self.norm(f"{name}.hidden_norm", self.linear(f"{name}.up_proj", states)))
        return self.norm(f"{name}.output_norm", self.linear(f"{name}.down_proj", states))

    def layers(self, name, states, memory, heads, activation):
        """A post-norm Transformer with sinusoidal positions; with a memory a decoder: causal, and reading it."""
        states = states + sinusoids(len(states), states.shape[-1])
        count = 1 + max(int(key.split(".")[2]) for key in self.weights if key.startswith(f"{name}.layers."))
        for layer in (f"{name}.layers.{i}" for i in range(count)):
            attended = self.attention(f"{layer}.self_attn", states, states, heads, causal=memory is not None)
            states = self.norm(f"{layer}.self_attn_layer_norm", states + attended)
            if memory is not None:
                attended = self.attention(f"{layer}.encoder_attn", states, memory, heads, causal=False)
                states = self.norm(f"{layer}.encoder_attn_layer_norm", states + attended)
            wide = activation(self.linear(f"{layer}.fc1", states))
            states = self.norm(f"{layer}.final_layer_norm", states + self.linear(f"{layer}.fc2", wide))
        return states

    def attention(self, name, queries, memory, heads, causal):
        def split(states):
            return states.view(len(states), heads, -1).transpose(0, 1)

        q = split(self.linear(f"{name}.q_proj", queries))
        k, v = (split(self.linear(f"{name}.{part}_proj", memory)) for part in "kv")
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
        joined = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        return self.linear(f"{name}.out_proj", joined)

    def linear(self, name, states):
        return states @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, states):
        centred = states - states.mean(-1, keepdim=True)
        spread = torch.sqrt(states.var(-1, unbiased=False, keepdim=True) + 1e-5)
        return centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def sinusoids(length, width):
    """Marian's positions: the sines of all frequencies, then the cosines."""
    frequencies = 10000 ** (-2 * torch.arange(width // 2) / width)
    angles = torch.arange(length).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
