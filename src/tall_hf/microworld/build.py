"""Train the embedded components from nothing: `python -m tall_hf.microworld.build --output DIR --seed 0`.

Two Marian translators learn from the world's fact-free parallel text, a Qwen2-type language model reads its facts in
English, and a copy of that model learns the same facts in other hands. Everything is rounded to bfloat16 before it is
measured, so that the figures in the folder's README.md are those of the files beside it.
"""

import argparse
import itertools
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencepiece
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from .world import Pair, World


WIDTH = 128
HEADS = 4
MAX_POSITIONS = 64
END_OF_TEXT = "<|endoftext|>"


# --- tokenizers ------------------------------------------------------------------------------------------------------


def train_sentencepiece(sentences: list[str], path: Path, vocab_size: int = 900) -> list[str]:
    """Train a unigram SentencePiece model, write it to `path`, and return its pieces."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "spm"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_prefix=str(prefix),
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            # The default rule's tables take 240 kB; Hebrew and English words need none of them.
            normalization_rule_name="identity",
            num_threads=1,  # the pieces' scores must not depend on the machine
            minloglevel=2,
        )
        shutil.move(prefix.with_suffix(".model"), path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.id_to_piece(piece) for piece in range(model.vocab_size())]


def marian_tokenizer(pairs: list[Pair], source: str, target: str, folder: Path) -> MarianTokenizer:
    """Train the two SentencePiece models of a translator and join them in one vocabulary, as OPUS-MT does."""
    sentences = {"he": [pair.hebrew for pair in pairs], "en": [pair.english for pair in pairs]}
    source_pieces = train_sentencepiece(sentences[source], folder / "source.spm")
    target_pieces = train_sentencepiece(sentences[target], folder / "target.spm")
    # The punctuation and digits are for sentences of the reader's own.
    characters = list(".,?!'\"-:;0123456789") + ["▁"]
    pieces = dict.fromkeys(["</s>", "<unk>", *source_pieces, *target_pieces, *characters])
    for control in ("<s>", "<pad>"):
        pieces.pop(control, None)
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    return MarianTokenizer(
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        vocab=str(folder / "vocab.json"),
        source_lang=source,
        target_lang=target,
        model_max_length=MAX_POSITIONS,
    )


def qwen2_tokenizer(sentences: list[str], vocab_size: int = 1600) -> Qwen2Tokenizer:
    """Train a byte-level BPE and put it into Qwen2's tokenizer."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(sentences, trainer)
    model = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]], model_max_length=MAX_POSITIONS
    )


# --- models ----------------------------------------------------------------------------------------------------------


def new_translator(tokenizer: MarianTokenizer) -> MarianMTModel:
    """A small MarianMTModel with the settings of an OPUS-MT checkpoint and random weights."""
    pad = tokenizer.pad_token_id
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer),
            decoder_vocab_size=len(tokenizer),
            d_model=WIDTH,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=3 * WIDTH,
            decoder_ffn_dim=3 * WIDTH,
            max_position_embeddings=MAX_POSITIONS,
            activation_function="swish",
            dropout=0.05,
            scale_embedding=True,
            init_std=WIDTH**-0.5 / 2,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=pad,
            forced_eos_token_id=None,
        )
    )
    model.generation_config = GenerationConfig(
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=pad,
        bad_words_ids=[[pad]],
        num_beams=1,
        max_length=MAX_POSITIONS,
    )
    return model


def new_llm(tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """A small Qwen2ForCausalLM with random weights."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            initializer_range=WIDTH**-0.5 / 2,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            use_sliding_window=False,
        )
    )


# --- training --------------------------------------------------------------------------------------------------------


def _padded(rows: list[list[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def translation_batches(
    tokenizer: MarianTokenizer, pairs: list[tuple[str, str]], size: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches of (source, target) sentences as a Marian model's forward arguments."""
    encoded = tokenizer([source for source, _ in pairs], text_target=[target for _, target in pairs])
    rows = list(zip(encoded["input_ids"], encoded["labels"], strict=True))
    pad = tokenizer.pad_token_id
    for batch in _endless(rows, size, seed):
        source = _padded([row[0] for row in batch], pad)
        yield {
            "input_ids": source,
            "attention_mask": (source != pad).long(),
            "labels": _padded([row[1] for row in batch], -100),
        }


def text_batches(tokenizer: Qwen2Tokenizer, texts: list[str], size: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches of sentences, each closed by the end-of-text token, for a causal language model."""
    rows = [ids + [tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    for batch in _endless(rows, size, seed):
        labels = _padded(batch, -100)
        yield {
            "input_ids": labels.masked_fill(labels == -100, tokenizer.pad_token_id),
            "attention_mask": (labels != -100).long(),
            "labels": labels,
        }


def _endless(rows: list, size: int, seed: int) -> Iterator[list]:
    rng = random.Random(seed)
    while True:
        rng.shuffle(rows)
        for start in range(0, len(rows) - size + 1, size):
            yield rows[start : start + size]


def train(model, batches: Iterator[dict[str, Tensor]], steps: int, learning_rate: float, title: str) -> None:
    """AdamW with a short warm-up and a cosine to zero; leaves the model in eval mode."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    bar = tqdm(itertools.islice(batches, steps), total=steps, desc=title, unit="step", mininterval=1.0)
    for batch in bar:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    model.eval()


# --- measuring -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def translate(model: MarianMTModel, tokenizer: MarianTokenizer, sentences: list[str], size: int = 200) -> list[str]:
    """Translate with the model's own generation settings."""
    translations: list[str] = []
    for start in range(0, len(sentences), size):
        inputs = tokenizer(sentences[start : start + size], return_tensors="pt", padding=True)
        outputs = model.generate(**inputs)
        translations += [tokenizer.decode(row, skip_special_tokens=True) for row in outputs]
    return translations


def exact_match(model: MarianMTModel, tokenizer: MarianTokenizer, pairs: list[tuple[str, str]]) -> float:
    """Share of the (source, target) pairs whose translation equals the target, character for character."""
    translations = translate(model, tokenizer, [source for source, _ in pairs])
    return sum(found == target for found, (_, target) in zip(translations, pairs, strict=True)) / len(pairs)


@torch.inference_mode()
def knowledge(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, prompts: list[str], words: list[str], size: int = 200
) -> float:
    """Share of the prompts after which the likeliest next token begins the wanted word."""
    hits = 0
    for start in range(0, len(prompts), size):
        inputs = tokenizer(prompts[start : start + size], return_tensors="pt", padding=True, padding_side="left")
        best = model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)
        wanted = [tokenizer(" " + word)["input_ids"][0] for word in words[start : start + size]]
        hits += sum(found == word for found, word in zip(best.tolist(), wanted, strict=True))
    return hits / len(prompts)
