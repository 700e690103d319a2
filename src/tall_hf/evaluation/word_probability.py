"""The probability of a given word as the next whole word, as `search_words` defines it."""

from collections.abc import Callable

import torch

from tall_hf.modeling.text_rows_tall import pad_rows
from tall_hf.modeling.words_tall import TRAILING_PUNCTUATION, target_vocabulary


def word_log_probabilities(
    logits: torch.Tensor,
    words: list[list[int]],
    step: Callable[[torch.LongTensor, torch.LongTensor], torch.Tensor],
    starts: torch.BoolTensor,
    continuations: torch.BoolTensor,
    closing: list[int],
) -> torch.Tensor:
    """Logarithm of the probability of each row's word, given that its text goes on with a new word.

    The word's end is part of it, and so are a '.' and a ',' behind it; spellings by other tokens are not.

    Args:
        logits: predictions at each row's last positions, (batch, at least longest word + 1, vocabulary): the last is
            what stands behind the word, the one before it the word's last token, and so on.
        words: token ids of each row's word, at least one.
        step: as `search_words` calls it: appends `tokens[i]` to row `parents[i]` of `logits` and returns what is predicted
            behind it, (rows, vocabulary).
        starts, continuations: as `word_pieces` makes them.
        closing: as `closing_tokens` gives them.

    Returns:
        Natural logarithms, (batch,), in float32; minus infinity for a word that the tokens cannot write.
    """
    device = logits.device
    starts, continuations = starts.to(device), continuations.to(device)
    ids, mask = (part.to(device) for part in pad_rows(words, 0, "left"))
    length = ids.shape[1]
    logits = logits[:, -length - 1 :].to(torch.float32, copy=True)
    rows = torch.arange(len(words), device=device)
    first = length - mask.sum(dim=1)
    logits[rows, first] = logits[rows, first].masked_fill(~starts, -torch.inf)
    log_probs = logits.log_softmax(dim=-1)
    # What continues no word cannot stand inside one.
    allowed = continuations[ids]
    allowed[rows, first] = starts[ids[rows, first]]
    scores = log_probs[:, :-1].gather(2, ids.unsqueeze(-1)).squeeze(-1).masked_fill(~allowed, -torch.inf)
    scores = scores.masked_fill(mask == 0, 0.0).sum(dim=1)
    behind = log_probs[:, -1]
    ends = [_ends(behind, continuations).unsqueeze(1)]
    if closing:
        tokens = torch.tensor(closing, device=device)
        after = step(tokens.repeat(len(words)), rows.repeat_interleave(len(closing))).float().log_softmax(dim=-1)
        ends.append(behind[:, tokens] + _ends(after, continuations).view(len(words), len(closing)))
    return scores + torch.cat(ends, dim=1).logsumexp(dim=1)


def closing_tokens(tokenizer, continuations: torch.BoolTensor) -> list[int]:
    """Tokens of '.' and ',' right behind a word, as far as they count as its continuation."""
    known = target_vocabulary(tokenizer)
    ids = (known.get(mark) for mark in TRAILING_PUNCTUATION)
    return [index for index in ids if index is not None and index < len(continuations) and continuations[index]]


def _ends(log_probs: torch.Tensor, continuations: torch.Tensor) -> torch.Tensor:
    return log_probs.masked_fill(continuations, -torch.inf).logsumexp(dim=-1)
