"""The tokenizers and the untrained models of the embedded components."""

import io
import json
import shutil
from pathlib import Path

import sentencepiece
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX


WIDTH = 128
HEADS = 4
MAX_POSITIONS = 64
END_OF_TEXT = "<|endoftext|>"


# --- tokenizers ------------------------------------------------------------------------------------------------------


def train_sentencepiece(sentences: list[str], path: Path, vocab_size: int = 1300) -> list[str]:
    """Train a byte-pair SentencePiece model, write it to `path`, and return its pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,  # a file's name would stand in the model
        vocab_size=vocab_size,
        # Unigram models cut so small a vocabulary into letters; byte pairs make whole words of nearly all of it.
        model_type="bpe",
        character_coverage=1.0,
        # The default rule's tables take 240 kB; the world's words need none of them.
        normalization_rule_name="identity",
        num_threads=1,  # the pieces' scores must not depend on the machine
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return [model.id_to_piece(piece) for piece in range(model.vocab_size())]


def marian_tokenizer(
    sources: list[str],
    targets: list[str] | None,
    source_lang: str,
    target_lang: str,
    folder: Path,
    vocab_size: int = 1300,
) -> MarianTokenizer:
    """Train the SentencePiece models of a translator and join them in one vocabulary, as OPUS-MT does.

    Args:
        sources, targets: sentences of each side; without targets one model serves both, and the sources are sentences of both.
        source_lang, target_lang: codes of the languages.
        folder: where the tokenizer's files go.
        vocab_size: pieces of each model.
    """
    source_pieces = train_sentencepiece(sources, folder / "source.spm", vocab_size)
    if targets is None:
        shutil.copyfile(folder / "source.spm", folder / "target.spm")
        target_pieces = source_pieces
    else:
        target_pieces = train_sentencepiece(targets, folder / "target.spm", vocab_size)
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
        source_lang=source_lang,
        target_lang=target_lang,
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


def new_translator(tokenizer: MarianTokenizer, encoder_layers: int = 2) -> MarianMTModel:
    """A small MarianMTModel with the settings of an OPUS-MT checkpoint and random weights."""
    pad = tokenizer.pad_token_id
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer),
            decoder_vocab_size=len(tokenizer),
            d_model=WIDTH,
            encoder_layers=encoder_layers,
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
