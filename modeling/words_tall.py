"""Whole words from the tokens of any decoder: which tokens begin a word, and the most probable next words by beams."""

import math
from collections.abc import Callable

import torch


# How a sentencepiece, or else a byte-level BPE, token shows that it begins a word.
_SENTENCEPIECE_START, _BYTE_LEVEL_START = "▁", "Ġ"
# How byte-level BPE writes the white space of ASCII (tab to carriage return, and the space).
_BYTE_LEVEL_SPACES = frozenset("ĉĊċČčĠ")
# The paper strips '.' and ',' from predictions; this also joins "word" and "word." into one answer.
TRAILING_PUNCTUATION = ".,"
# Probability of the unfinished words below which looking further cannot change an answer that anybody reads.
_NEGLIGIBLE = 1e-4


def word_pieces(tokenizer, vocab_size: int | None = None) -> tuple[torch.BoolTensor, torch.BoolTensor]:
    """Which tokens begin a word, and which continue one; special and unused ids do neither.

    Nor do byte-level tokens with a line break or more than the one space that begins a word: a word ends before them.

    Args:
        tokenizer: with sentencepiece's or byte-level BPE's vocabulary; of a Marian tokenizer the target's counts.
        vocab_size: width of the model's logits, which may exceed the tokenizer's vocabulary, its default.

    Returns:
        Two masks of shape (vocab_size,).

    Raises:
        ValueError: the vocabulary does not show where words begin.
    """
    # MarianTokenizer keeps a target vocabulary of its own when the two are separate.
    known = getattr(tokenizer, "target_encoder", None) or tokenizer.get_vocab()
    width = max(known.values()) + 1 if vocab_size is None else vocab_size
    special = set(tokenizer.all_special_ids)
    # To sentencepiece "Ġ" is a letter of Maltese; byte-level BPE has no "▁" as a character.
    byte_level = not any(piece.startswith(_SENTENCEPIECE_START) for piece in known)
    start = _BYTE_LEVEL_START if byte_level else _SENTENCEPIECE_START
    starts = torch.zeros(width, dtype=torch.bool)
    continuations = torch.zeros(width, dtype=torch.bool)
    for piece, index in known.items():
        if index in special or index >= width or (piece.startswith(">>") and piece.endswith("<<")):
            continue
        if byte_level and not _BYTE_LEVEL_SPACES.isdisjoint(piece.removeprefix(start)):
            continue
        (starts if piece.startswith(start) else continuations)[index] = True
    if not starts.any():
        raise ValueError(
            f"No token of {type(tokenizer).__name__} begins with one of "
            f"{(_SENTENCEPIECE_START, _BYTE_LEVEL_START)}, so words cannot be told apart. Use a sentencepiece or "
            "byte-level BPE tokenizer."
        )
    return starts, continuations


def search_words(
    logits: torch.Tensor,
    step: Callable[[torch.LongTensor, torch.LongTensor], torch.Tensor],
    starts: torch.BoolTensor,
    continuations: torch.BoolTensor,
    decode: Callable[[list[int]], str],
    num_beams: int,
    max_word_tokens: int,
) -> list[list[tuple[str, float]]]:
    """The most probable next words, by beams over a word's tokens.

    A word ends where the tokenizer begins the next one, or the sentence ends. Probabilities are those of the word given
    that the text goes on with a new word; spellings of one word by different tokens are added up, and so are a word and
    the same word with a '.' or ',' behind it. The search ends when all unfinished beams of a row together are less
    probable than 0.0001.

    Args:
        logits: what the decoder predicts behind each text, (batch, vocabulary).
        step: called with `tokens` and `parents`, both (batch * num_beams,): appends to row `parents[i]` of its last call,
            or of `logits` at the first, the token `tokens[i]`, as its new row i, and returns the next logits,
            (batch * num_beams, vocabulary). Rows of one text stay side by side.
        starts, continuations: as `word_pieces` makes them.
        decode: the text of a row of tokens; a word for which it is empty is left out.
        num_beams: how many unfinished words are followed at a time, at most the vocabulary.
        max_word_tokens: words of more tokens are not considered.

    Returns:
        For each row its words, each with its probability in (0, 1], the most probable first.
    """
    batch, vocabulary = logits.shape
    starts, continuations = starts.to(logits.device), continuations.to(logits.device)
    log_probs = logits.float().masked_fill(~starts, -math.inf).log_softmax(dim=-1)
    scores, tokens = log_probs.topk(num_beams, dim=-1)
    words = tokens.unsqueeze(-1)  # (batch, beams, tokens so far)
    rows = torch.arange(batch, device=logits.device).unsqueeze(1)
    parents = rows.expand(batch, num_beams)
    found = [{} for _ in range(batch)]
    for _ in range(max_word_tokens):
        # A row that has ended takes no more words: its answer must not depend on its batch.
        unfinished = scores.exp().sum(dim=-1, keepdim=True) >= _NEGLIGIBLE
        scores = scores.masked_fill(~unfinished, -math.inf)
        if not unfinished.any():
            break
        logits = step(words[..., -1].flatten(), parents.flatten())
        log_probs = logits.float().log_softmax(dim=-1).view(batch, num_beams, vocabulary)
        ends = log_probs.masked_fill(continuations, -math.inf).logsumexp(dim=-1)
        _collect_words(found, words, scores + ends, decode)
        longer = scores.unsqueeze(-1) + log_probs.masked_fill(~continuations, -math.inf)
        scores, choices = longer.flatten(1).topk(num_beams, dim=-1)
        beams = choices // vocabulary
        words = torch.cat(
            [
                words.gather(1, beams.unsqueeze(-1).expand(-1, -1, words.shape[-1])),
                (choices % vocabulary).unsqueeze(-1),
            ],
            dim=-1,
        )
        parents = rows * num_beams + beams
    return [sorted(words.items(), key=lambda item: (-item[1], item[0])) for words in found]


def _collect_words(found, words, scores, decode):
    """Add finished beams, (batch, beams, tokens) with log-probabilities (batch, beams), to each row's {word: p}."""
    for row_words, row_tokens, row_scores in zip(found, words.tolist(), scores.tolist(), strict=True):
        for tokens, score in zip(row_tokens, row_scores, strict=True):
            if score == -math.inf:
                continue
            word = decode(tokens)
            word = word.rstrip(TRAILING_PUNCTUATION) or word
            if word:
                row_words[word] = row_words.get(word, 0.0) + math.exp(score)
