"""Codes of languages as the Hub takes them, and their English names."""

import re

from transformers.models.whisper.tokenization_whisper import LANGUAGES


_CODE = re.compile(r"[a-z]{2,3}")


def check_language(code: str) -> str:
    """The language of a code, as the Hub takes it: "he" of "he", "he_IL"; "heb" of "heb_Hebr".

    Raises:
        ValueError: the code does not begin with two or three letters.
    """
    language = re.split("[_-]", code)[0]
    if not _CODE.fullmatch(language):
        raise ValueError(f"{code!r} is no ISO 639 code of a language, which has two or three letters, such as 'he'.")
    return language


def language_name(code: str) -> str:
    """The English name of a language; of rarer ones the code."""
    return LANGUAGES[code].title() if code in LANGUAGES else f"`{code}`"
