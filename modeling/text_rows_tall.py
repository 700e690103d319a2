"""Rows of token ids: of texts, cut to a length with a word about it, and padded."""

import torch
from transformers.utils import logging


logger = logging.get_logger(__name__)


def check_texts(texts: str | list[str]) -> list[str]:
    """A list of texts from one or several.

    Raises:
        TypeError: for anything else.
        ValueError: for a text with half of a surrogate pair, which is no character and no tokenizer reads.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        wrong = type(texts).__name__
        if isinstance(texts, list | tuple):
            wrong = f"a {wrong} holding {next(type(t).__name__ for t in texts if not isinstance(t, str))}"
        raise TypeError(f"Expected a text or a list of texts, got {wrong}.")
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"A text holds {ascii(text[error.start])} as its character {error.start + 1}, half of a surrogate pair, which "
                "is no character. Read the text as UTF-8, or leave it out."
            ) from None
    return list(texts)


def ensure_padding(tokenizer) -> None:
    """Give a tokenizer without a padding token its end-of-text token for one; ValueError if it has neither."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} has no padding and no end-of-text token; set its `pad_token`.")


def without_code(tokenizer) -> None:
    """Take from a tokenizer what names code to run: saving writes it on, and whoever trusts the model would run it."""
    tokenizer.init_kwargs.pop("auto_map", None)


def as_text(tokenizer, texts: list[str]) -> list[str]:
    """Texts of which a MarianTokenizer takes no beginning for the code of a language, such as `>>fra<<`."""
    if not hasattr(tokenizer, "remove_language_code"):
        return texts
    return [f" {text}" if text.startswith(">>") else text for text in texts]


def token_rows(tokenizer, texts: list[str], max_length: int | None, name: str) -> list[list[int]]:
    """Token ids of texts with the tokenizer's special tokens around them; what looks like one inside a text is text.

    One that is too long is cut, with a warning that names it.
    """
    if not texts:
        return []
    options = {"split_special_tokens": True, "verbose": False}
    rows = tokenizer(texts, **options)["input_ids"]
    kept = "last" if tokenizer.truncation_side == "left" else "first"
    if max_length is not None and warn_if_longer(rows, max_length, name, kept):
        rows = tokenizer(texts, truncation=True, max_length=max_length, **options)["input_ids"]
        if tokenizer.is_fast:
            # It would keep cutting's settings, and save them.
            tokenizer.backend_tokenizer.no_truncation()
    return rows


def warn_if_longer(rows: list[list[int]], limit: int, name: str, kept: str = "last") -> bool:
    """Whether a row is longer than `limit`, which is told; `kept` says which of its tokens stay."""
    longest = max((len(row) for row in rows), default=0)
    if longest > limit:
        logger.warning(f"A {name} of {longest} tokens was cut to its {kept} {limit}, the most that is read.")
    return longest > limit


def pad_rows(rows: list[list[int]], value: int, side: str) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Pad rows of token ids on the "left" or "right" to (batch, longest); the mask is 0 where they were padded."""
    length = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), length), value, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        columns = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[i, columns] = torch.tensor(row, dtype=torch.long)
        mask[i, columns] = 1
    return ids, mask
