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
# Probability of unfinished words that may be given up: it cannot change an answer that anybody reads.
_NEGLIGIBLE = 1e-4


def target_vocabulary(tokenizer) -> dict[str, int]:
    """The pieces that a tokenizer writes targets with; MarianTokenizer keeps a vocabulary of their own when the two are separate."""
    return getattr(tokenizer, "target_encoder", None) or tokenizer.get_vocab()


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
    known = target_vocabulary(tokenizer)
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
    the same word with a '.' or ',' behind it. Improbable beams are given up, the least probable first, as long as all that a
    row has given up is together less probable than 0.0001.

    Args:
        logits: what the decoder predicts behind each text, (batch, vocabulary).
        step: called with `tokens` and `parents`, both (beams,), of all beams that are followed: appends to row `parents[i]` of
            its last call, or of `logits` at the first, the token `tokens[i]`, as its new row i, and returns the next logits,
            (beams, vocabulary). Rows of one text stay side by side.
        starts, continuations: as `word_pieces` makes them.
        decode: the text of a row of tokens; a word for which it is empty is left out.
        num_beams: how many unfinished words of a text are followed at a time, at most the vocabulary.
        max_word_tokens: words of more tokens are not considered.

    Returns:
        For each row its words, each with its probability in (0, 1], the most probable first.
    """
    batch = len(logits)
    starts, continuations = starts.to(logits.device), continuations.to(logits.device)
    # (batch, num_beams): log-probabilities, most probable first, and the rows of the last logits that the beams grow from.
    scores, tokens = logits.float().masked_fill(~starts, -math.inf).log_softmax(dim=-1).topk(num_beams, dim=-1)
    parents = torch.arange(batch, device=logits.device).unsqueeze(1).expand(batch, num_beams)
    words = tokens.unsqueeze(-1)  # (batch, num_beams, tokens so far)
    given_up = scores.new_zeros(batch, 1)
    found = [{} for _ in range(batch)]
    for _ in range(max_word_tokens):
        probabilities = scores.exp()
        with_all_behind = probabilities.flip(-1).cumsum(dim=-1).flip(-1)
        negligible = given_up + with_all_behind < _NEGLIGIBLE
        given_up = given_up + probabilities.masked_fill(~negligible, 0.0).sum(dim=-1, keepdim=True)
        rows, beams = (~negligible & scores.isfinite()).nonzero(as_tuple=True)
        if not len(rows):
            break
        words, scores = words[rows, beams], scores[rows, beams]
        log_probs = step(words[:, -1], parents[rows, beams]).float().log_softmax(dim=-1)
        ends = log_probs.masked_fill(continuations, -math.inf).logsumexp(dim=-1)
        _collect_words(found, rows, words, scores + ends, decode)
        # No beam has more among the best of its row than its own best.
        longer, pieces = log_probs.masked_fill(~continuations, -math.inf).topk(num_beams, dim=-1)
        best = longer.new_full((batch, num_beams, num_beams), -math.inf)
        best[rows, beams] = scores.unsqueeze(-1) + longer
        grown_from = torch.zeros(batch, num_beams, dtype=torch.long, device=logits.device)
        grown_from[rows, beams] = torch.arange(len(rows), device=logits.device)
        scores, choices = best.flatten(1).topk(num_beams, dim=-1)
        parents = grown_from.gather(1, choices // num_beams)
        words = torch.cat([words[parents], pieces[parents, choices % num_beams].unsqueeze(-1)], dim=-1)
    return [sorted(words.items(), key=lambda item: (-item[1], item[0])) for words in found]


def _collect_words(found, rows, words, scores, decode):
    """Add finished beams, (beams, tokens) of these `rows` with their log-probabilities, to each row's {word: p}."""
    for row, tokens, score in zip(rows.tolist(), words.tolist(), scores.tolist(), strict=True):
        if score == -math.inf:
            continue
        word = decode(tokens)
        word = word.rstrip(TRAILING_PUNCTUATION) or word
        if word:
            found[row][word] = found[row].get(word, 0.0) + math.exp(score)
