"""Tiny random checkpoints of the real classes, with real tokenizers, in folders: what tests compose TALLs from.

Run as a script it writes one: `python tests/parts.py marian_he_en DIR`.
"""

import io
import json
import sys
from pathlib import Path

import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers


HEBREW = [
    "דנה גרה בחיפה",
    "יוסי גר בבית האדום",
    "רות אוכלת תפוח ירוק בבוקר",
    "משה נוסע לעבודה באוטובוס",
    "הילדה קוראת ספר על ים גדול",
    "אתה עייף מאוד היום",
    "את עייפה מאוד היום",
    "שלום, עולם.",
]
ENGLISH = [
    "Dana lives in Haifa",
    "Yossi lives in the red house",
    "Ruth eats a green apple in the morning",
    "Moshe goes to work by bus",
    "The girl reads a book about a big sea",
    "You are very tired today",
    "Hello world",
]
# To draw sentences from that the tiny tokenizers know.
WORDS = sorted({word for line in HEBREW for word in line.split()})
BRIDGES = ("marian", "gated", "concat", "none")
# How each translator family is composed: kinds of `write`, and the language codes it wants.
TRANSLATORS = {
    "marian": ("marian_he_en", "marian_en_he", {}),
    "m2m_100": ("m2m_100", "m2m_100", {"source_lang": "he", "pivot_lang": "en"}),
    "nllb": ("nllb", "nllb", {"source_lang": "heb_Hebr", "pivot_lang": "eng_Latn"}),
    "mbart50": ("mbart50", "mbart50", {"source_lang": "he_IL", "pivot_lang": "en_XX"}),
}
LLMS = ("qwen2", "qwen3", "llama", "mistral", "gemma", "bloom", "gpt2", "opt")
# With the usual 0.02 a tiny random model answers nearly the same whatever it reads, and a test of it proves little.
LOUD = 0.2

# The three lengths of a row must be able to differ, so texts are of many lengths.
SENTENCES = ["דנה גרה", "יוסי גר בבית", "רות אוכלת תפוח ירוק", "הילדה קוראת ספר על ים גדול", "שלום"]
TRANSLATIONS = ["Dana lives", "Yossi lives in the", "Ruth", "The girl reads a book about a big sea", "Hello world"]


def _sentencepiece(lines, size) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        bos_id=-1,
        pad_id=-1,
        unk_id=0,
        eos_id=1,
        minloglevel=2,
    )
    return model.getvalue()


def _pieces(serialized: bytes) -> list[tuple[str, float]]:
    model = sentencepiece.SentencePieceProcessor(model_proto=serialized)
    return [(model.IdToPiece(i), model.GetScore(i)) for i in range(model.GetPieceSize())]


def _marian_tokenizer(folder: Path, source, target):
    folder.mkdir(parents=True)
    vocab = ["</s>", "<unk>"]
    for name, lines in (("source.spm", source), ("target.spm", target)):
        serialized = lines if isinstance(lines, bytes) else _sentencepiece(lines, 90)
        (folder / name).write_bytes(serialized)
        vocab += [piece for piece, _ in _pieces(serialized) if piece not in vocab]
    vocab.append("<pad>")
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocab)}), encoding="utf-8")
    return transformers.MarianTokenizer(
        str(folder / "source.spm"),
        str(folder / "target.spm"),
        str(folder / "vocab.json"),
    )


def _bpe(lines, size=320):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _translator_sizes(width, heads):
    return {
        "d_model": width,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 2 * width,
        "decoder_ffn_dim": 2 * width,
        "max_position_embeddings": 64,
        "scale_embedding": True,
        "dropout": 0.1,
        "init_std": LOUD,
    }


def marian(folder: Path, source, target, width, heads=4, **sizes):
    """(model, tokenizer); `source` and `target` are lines to learn pieces from, or sentencepiece's models as bytes."""
    tokenizer = _marian_tokenizer(folder, source, target)
    config = transformers.MarianConfig(
        vocab_size=len(tokenizer.encoder),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
        activation_function="swish",
        **{**_translator_sizes(width, heads), **sizes},
    )
    model = transformers.MarianMTModel(config)
    model.final_logits_bias.normal_(std=0.3)  # real checkpoints have one, so its being dropped must show
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bad_words_ids=[[tokenizer.pad_token_id]],
        max_length=24,
        num_beams=2,
    )
    return model, tokenizer


def m2m_100(folder: Path, width, heads=4):
    folder.mkdir(parents=True)
    serialized = _sentencepiece(HEBREW + ENGLISH, 120)
    (folder / "spm.model").write_bytes(serialized)
    pieces = [piece for piece, _ in _pieces(serialized)][2:]
    vocab = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces])}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    tokenizer = transformers.M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "spm.model"), src_lang="he")
    # The language tokens stand behind the vocabulary, and are not counted in it. The rows that real checkpoints leave
    # free behind those have no text, and a random model would write them.
    size = len(tokenizer) + len(tokenizer.lang_code_to_id)
    return _many_languages(
        transformers.M2M100Config, transformers.M2M100ForConditionalGeneration, tokenizer, size, width, heads
    )


def nllb(folder: Path, width, heads=4):
    folder.mkdir(parents=True)
    vocab = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁"])}
    for letter in sorted(set("".join(HEBREW + ENGLISH)) - {" "}):
        vocab[letter] = len(vocab)
        vocab["▁" + letter] = len(vocab)
    merges = [("▁", piece[1:]) for piece in vocab if len(piece) == 2 and piece.startswith("▁")]
    tokenizer = transformers.NllbTokenizer(vocab=vocab, merges=merges, src_lang="heb_Hebr")
    model, tokenizer = _many_languages(
        transformers.M2M100Config, transformers.M2M100ForConditionalGeneration, tokenizer, len(tokenizer), width, heads
    )
    model.generation_config.num_beams = None  # as in the original, whose settings say nothing of it
    return model, tokenizer


def mbart50(folder: Path, width, heads=4):
    folder.mkdir(parents=True)
    serialized = _sentencepiece(HEBREW + ENGLISH, 120)
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *_pieces(serialized)[2:]]
    tokenizer = transformers.MBart50Tokenizer(vocab=pieces, src_lang="he_IL")
    return _many_languages(
        transformers.MBartConfig, transformers.MBartForConditionalGeneration, tokenizer, len(tokenizer), width, heads
    )


def _many_languages(config_class, model_class, tokenizer, vocab_size, width, heads):
    config = config_class(vocab_size=vocab_size, **_translator_sizes(width, heads))
    model = model_class(config)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=2, pad_token_id=1, eos_token_id=2, bos_token_id=0, max_length=24, num_beams=2
    )
    return model, tokenizer


LLM_WIDTH = 32
_LLM = {
    "initializer_range": LOUD,
    "hidden_size": LLM_WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 80,
}


def llm(family: str, width: int = LLM_WIDTH):
    """(model with its head, tokenizer); as in the originals, GPT-2's and Llama's tokenizers have no padding token."""
    sizes = {**_LLM, "hidden_size": width}
    configs = {
        "qwen2": lambda n: transformers.Qwen2Config(vocab_size=n, num_key_value_heads=2, **sizes),
        "qwen3": lambda n: transformers.Qwen3Config(vocab_size=n, num_key_value_heads=2, head_dim=8, **sizes),
        "llama": lambda n: transformers.LlamaConfig(vocab_size=n, num_key_value_heads=2, **sizes),
        "mistral": lambda n: transformers.MistralConfig(vocab_size=n, num_key_value_heads=2, **sizes),
        "gemma": lambda n: transformers.GemmaConfig(vocab_size=n, num_key_value_heads=1, head_dim=8, **sizes),
        "bloom": lambda n: transformers.BloomConfig(
            vocab_size=n, hidden_size=width, n_layer=2, n_head=4, initializer_range=LOUD
        ),
        "gpt2": lambda n: transformers.GPT2Config(
            vocab_size=n, n_embd=width, n_layer=2, n_head=4, n_positions=80, initializer_range=LOUD
        ),
        "opt": lambda n: transformers.OPTConfig(
            vocab_size=n,
            hidden_size=48,
            word_embed_proj_dim=width,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=80,
            init_std=LOUD,
        ),
    }
    special = {
        "qwen2": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        "qwen3": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        "llama": {"bos_token": "<s>", "eos_token": "</s>"},
        "mistral": {"bos_token": "<s>", "eos_token": "</s>"},
        "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        "bloom": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        "opt": {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"},
    }
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=_bpe(ENGLISH), **special[family])
    config = configs[family](len(tokenizer))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    return transformers.AutoModelForCausalLM.from_config(config), tokenizer


def write(kind: str, folder: str | Path, seed: int = 0) -> Path:
    """Save a checkpoint: "marian_he_en", "marian_en_he", "m2m_100", "nllb", "mbart50" or a family of `llm`."""
    folder = Path(folder)
    torch.manual_seed(seed)
    if kind == "marian_he_en":
        model, tokenizer = marian(folder, HEBREW, ENGLISH, width=16)
    elif kind == "marian_en_he":
        # Longer than the others: which of the parts a limit comes from must show.
        model, tokenizer = marian(folder, ENGLISH, HEBREW, width=24, max_position_embeddings=72)
    elif kind in ("m2m_100", "nllb", "mbart50"):
        model, tokenizer = globals()[kind](folder, width=16)
    else:
        model, tokenizer = llm(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases and norms start at 0 and 1, and losing one must show
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stir(model):
    """Add noise to every trainable parameter."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


if __name__ == "__main__":
    print(write(*sys.argv[1:]))
