"""The models that are measured: the paper's two sizes and a tiny one with random weights, and the embedded little world.

A tokenizer of a random model has one token a word: the text "17 5" is the tokens of these two numbers, for the translators and
the LLM alike. So a translation of 25 tokens is one of 25 tokens to the LLM too, and completing by 20 words is writing 20
tokens. Its special tokens are ruled out by the biases on the logits, which forces every translation to its full length.
"""

import contextlib
import random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BloomConfig, GenerationConfig, PreTrainedTokenizerFast, Qwen2Config

from tall_hf import TALLConfig, TALLForCausalLM, TALLProcessor, compose
from tall_hf.microworld import World, components_folder


BLOOMZ_560M = {"vocab_size": 250880, "hidden_size": 1024, "n_layer": 24, "n_head": 16}
# Published configurations, for what grows with the LLM: https://huggingface.co/Qwen (Qwen2.5, base models).
QWEN = {
    "0.5B": {},
    "1.5B": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "intermediate_size": 8960},
    "3B": {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "intermediate_size": 11008},
    "7B": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "72B": {
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 29568,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
_QWEN_05B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "tie_word_embeddings": True,
}
# What `configuration` knows.
NAMES = ("qwen", "bloomz", "tiny", *QWEN)
# As in OPUS-MT, the padding token is a vocabulary's last one.
_END, _UNKNOWN, _FIRST_WORD = 0, 1, 2
# Wide enough that random logits are told apart in any order of summation.
_TINY_STD = 0.2


def qwen(size: str) -> Qwen2Config:
    """The configuration of a Qwen2.5 model, by a key of `QWEN`."""
    return Qwen2Config(**{**_QWEN_05B, **QWEN[size]})


def configuration(size: str, bridge: str = "marian") -> TALLConfig:
    """What a random model of a size is built from: "qwen", "bloomz", a key of `QWEN`, or "tiny".

    Raises:
        ValueError: another size.
    """
    if size not in NAMES:
        raise ValueError(f"`size` must be one of {', '.join(NAMES)}, got {size!r}.")
    if size == "tiny":
        translator = {
            "model_type": "marian",
            "vocab_size": 200,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "max_position_embeddings": 128,
            "scale_embedding": True,
            "init_std": _TINY_STD,
            "pad_token_id": 199,
            "decoder_start_token_id": 199,
        }
        llm = Qwen2Config(
            vocab_size=220,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            initializer_range=_TINY_STD,
            max_position_embeddings=128,
        )
        parts = {"lr_hr_config": translator, "llm_config": llm, "hr_lr_config": translator | {"vocab_size": 210}}
    else:
        llm = BloomConfig(**BLOOMZ_560M) if size == "bloomz" else qwen("0.5B" if size == "qwen" else size)
        parts = {"llm_config": llm}
    config = TALLConfig(source_bridge=bridge, **parts)
    for part in (config.lr_hr_config, config.hr_lr_config):
        part.pad_token_id = part.decoder_start_token_id = part.vocab_size - 1
        part.eos_token_id, part.forced_eos_token_id = _END, None
    for name in ("pad_token_id", "decoder_start_token_id", "eos_token_id"):
        setattr(config, name, getattr(config.hr_lr_config, name))
    return config


def random_tall(size: str, length: int, beams: int, seed: int, device: str) -> tuple[TALLForCausalLM, TALLProcessor]:
    """A model of random weights in float32 that translates everything to `length` tokens, by `beams`, and its processor."""
    torch.manual_seed(seed)
    config = configuration(size)
    with torch.device(device):
        model = TALLForCausalLM(config)
    translator = model.encoder.translator
    for bias in (translator.final_logits_bias, model.final_logits_bias):
        bias[:, [_END, _UNKNOWN, -1]] = -1e4
    translator.generation_config = _generation_config(config.lr_hr_config, num_beams=beams, max_new_tokens=length)
    model.generation_config = _generation_config(config.hr_lr_config)
    sizes = (config.hr_lr_config.vocab_size, config.lr_hr_config.vocab_size, config.llm_config.vocab_size)
    processor = TALLProcessor(
        *map(number_tokenizer, sizes),
        decoder_start_token_ids=[config.decoder_start_token_id],
        max_source_length=config.max_source_length,
        max_translation_length=config.max_translation_length,
        max_target_length=config.max_target_length,
    )
    return model.eval(), processor


def number_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """One token a number, the word of its id."""
    vocabulary = {f"▁{number}": number for number in range(_FIRST_WORD, size - 1)}
    vocabulary |= {"</s>": _END, "<unk>": _UNKNOWN, "<pad>": size - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")


def _generation_config(part, **settings) -> GenerationConfig:
    special = {name: getattr(part, name) for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    return GenerationConfig(do_sample=False, **special, **settings)


def number_texts(count: int, length: int, seed: int, vocab_size: int) -> list[str]:
    """Sentences of `length` words each, drawn from what a vocabulary of that size has."""
    draw = random.Random(seed)
    return [" ".join(str(draw.randrange(_FIRST_WORD, vocab_size - 1)) for _ in range(length)) for _ in range(count)]


def microworld_tall(seed: int, device: str) -> tuple[TALLForCausalLM, TALLProcessor]:
    """The embedded translators and LLM, composed, with adapters that are not trained."""
    torch.manual_seed(seed)
    folder = components_folder()
    with contextlib.redirect_stdout(None):
        model, processor = compose(
            folder / "lr_hr", folder / "llm", folder / "hr_lr", source_bridge="gated", gate_init=0.2
        )
    return model.to(device).eval(), processor


@torch.no_grad()
def start_from_zeros(translator) -> None:
    """Move what a Marian translator's start token says into its decoder's first position, in place: it translates as before.

    CTranslate2 starts every Marian translation from an embedding of zeros, which the little world's translators do not have.
    """
    start, decoder = translator.config.decoder_start_token_id, translator.get_decoder()
    embeddings = decoder.embed_tokens.weight
    decoder.embed_positions.weight[0] += decoder.embed_scale * embeddings[start]
    embeddings[start] = 0.0
    translator._keys_to_ignore_on_save = (
        None  # which the tables of positions are among, being always the same elsewhere
    )


def microworld_texts(count: int, seed: int) -> list[str]:
    """Truncated sentences of the little world, over and over if it has fewer."""
    train, _ = World().records(seed)
    return [train[index % len(train)].truncated for index in range(count)]
