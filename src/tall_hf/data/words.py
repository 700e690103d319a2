"""Words: the normalised text they stand in, where the last one begins, and which of their signs are no part of them.

The last word is defined without knowledge of any language: words stand between spaces (or are what `split` returns),
a token without a letter or a digit is no word, and punctuation around a word is not part of it.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable


# The property Bidi_Control, then what is invisible and joins nothing: soft hyphen, word joiner, byte
# order mark, emoji presentation. The zero-width joiners are letters' business in Persian and in India, and stay inside words.
_INVISIBLE = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u00ad\u2060\ufeff\ufe0e\ufe0f"
_JOINERS = "\u200c\u200d"
# Points and cantillation marks, not the punctuation between them (maqaf, paseq, sof pasuq, nun hafukha).
_NIQQUD = "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
# What is left of mark-up and tables. Only tokens of nothing else are removed: C# and snake_case are words.
_MARK_UP = frozenset("|~^*#_•·‣\\<>")

_INVISIBLE_PATTERN = re.compile(f"[{_INVISIBLE}]")
_NIQQUD_PATTERN = re.compile(f"[{_NIQQUD}]")
_MOST_MARKS = 30
# Neither letters nor white space; fewer in a row hold no more marks, of which a letter brings three at most, and a sign two.
_MANY_SIGNS = re.compile(r"[^\w\s]{14,}")


def split_name(split: Callable[[str], list[str]]) -> str | None:
    """The name of a function that divides a sentence into words, for settings that are kept; None for `str.split`."""
    return None if split is str.split else getattr(split, "__qualname__", repr(split))


def normalize(text: str, strip_niqqud: bool = False) -> str:
    """Unicode NFC on one line, without control characters, bidirectional marks and stray symbols.

    Removed everywhere: control and private-use characters, bidirectional and other invisible marks, pictures and other
    symbols (Unicode category So, the degree sign aside), with `strip_niqqud` Hebrew points. Removed where they stand alone:
    signs of mark-up such as `*`, `|` and `•`. Of more than 30 combining marks in a row the first stay. Runs of white space
    become one space. Applied twice it changes nothing more.
    """
    # The zero-width space is where Khmer, Lao or Thai text shows that a word ends.
    text = _INVISIBLE_PATTERN.sub("", text.replace("\u200b", " "))
    text = text.translate(_STRAY_TO_SPACE)
    text = unicodedata.normalize("NFC", _cut_marks(text))
    if strip_niqqud:
        # What a point had kept apart may compose now.
        text = unicodedata.normalize("NFC", _NIQQUD_PATTERN.sub("", text))
    tokens = (token.strip(_JOINERS) for token in text.split())
    return " ".join(token for token in tokens if not _MARK_UP.issuperset(token))


def strip_punctuation(word: str) -> str:
    """The word without punctuation around it; geresh, gershayim, apostrophe and hyphen inside it stay.

    This is what makes two words the same in evaluation: strip the answer as the missing word was stripped.
    """
    start, end = 0, len(word)
    while start < end and _is_punctuation(word[start]):
        start += 1
    while end > start and _is_punctuation(word[end - 1]):
        end -= 1
    return word[start:end]


def split_last_word(sentence: str, split: Callable[[str], list[str]] = str.split) -> tuple[str, str]:
    """Divide a sentence into what stands before its last word, and that word.

    Words are separated by white space. Tokens at the end that have no letter and no digit are dropped, and punctuation
    around the word is stripped: `אמרה: "הלכתי לבית-ספר".` becomes (`אמרה: "הלכתי`, `לבית-ספר`). So `f"{truncated} {word}"`
    is the sentence up to and with the word.

    Args:
        sentence: a sentence; `normalize` it first.
        split: divides a sentence into tokens, in order, each a part of the sentence. For scripts without spaces, such as
            Chinese or Thai, hand in a word segmenter.

    Returns:
        (truncated, word), both empty for a sentence without words; `truncated` is empty for a single word.

    Raises:
        ValueError: `split` returned a token that is not part of the sentence where it should be.
    """
    truncated, _, word = divide_at_last_word(sentence, split)
    return truncated, word


def divide_at_last_word(sentence: str, split: Callable[[str], list[str]] = str.split) -> tuple[str, str, str]:
    """As `split_last_word`, with what stands between the two: (truncated, a space or nothing, word).

    Raises:
        ValueError: `split` returned something that is no part of the sentence.
    """
    end = len(sentence)
    for token in reversed(split(sentence)):
        start = sentence.rfind(token, 0, end)
        if start < 0 or not token:
            raise ValueError(
                f"`split` returned {token!r}, which is not part of {sentence!r} before position {end}; it must return "
                "parts of the sentence, in order."
            )
        if is_word(token):
            truncated = sentence[:start].rstrip()
            return truncated, sentence[len(truncated) : start][:1], strip_punctuation(token)
        end = start
    return "", "", ""


def divide_at_word(sentence: str, index: int, split: Callable[[str], list[str]] = str.split) -> tuple[str, str, str]:
    """As `divide_at_last_word`, at the word of that index, counted from 0: what stands before it, a space or nothing, the word.

    Raises:
        IndexError: the sentence has fewer words.
    """
    end, found = 0, -1
    for token in split(sentence):
        start = sentence.find(token, end)
        end = start + len(token)
        found += is_word(token)
        if found == index and is_word(token):
            truncated = sentence[:start].rstrip()
            return truncated, sentence[len(truncated) : start][:1], strip_punctuation(token)
    raise IndexError(f"{sentence!r} has {found + 1} words, so none of index {index}.")


def words_of(sentence: str, split: Callable[[str], list[str]] = str.split) -> list[str]:
    """The words of a normalised sentence, without the punctuation around and between them."""
    return [strip_punctuation(token) for token in split(sentence) if is_word(token)]


def count_words(sentence: str, split: Callable[[str], list[str]] = str.split) -> int:
    """How many tokens have a letter or a digit."""
    return sum(map(is_word, split(sentence)))


def is_word(token: str) -> bool:
    """Whether a token has a letter or a digit."""
    return any(unicodedata.category(char)[0] in "LN" for char in token)


def _is_punctuation(char):
    category = unicodedata.category(char)
    return category[0] == "P" or category == "Sk"  # Sk: backtick and acute, which people quote with


def _is_stray(char):
    category = unicodedata.category(char)
    # Skin tones are "modifier symbols", as the acute accent is.
    return (category in ("Cc", "Cs", "Co", "So") and char != "°") or "\U0001f3fb" <= char <= "\U0001f3ff"


class _StrayToSpace(dict):
    """A table for `str.translate`: stray characters become spaces. It keeps what it has found out, of 20,000 characters at most."""

    def __missing__(self, code):
        found = " " if _is_stray(chr(code)) else code
        if len(self) < 20_000:
            self[code] = found
        return found


_STRAY_TO_SPACE = _StrayToSpace()


def _cut_marks(text):
    """The text with at most 30 combining marks on a letter, as in Unicode's Stream-Safe Text Format (UAX #15).

    NFC takes time with the square of their number. They are counted decomposed, where NFC changes no number of them.
    """
    if not _MANY_SIGNS.search(text):
        return text
    kept, marks = [], 0
    for char in text:
        decomposed = unicodedata.normalize("NFD", char)
        own = len(list(itertools.takewhile(unicodedata.combining, reversed(decomposed))))
        marks = own + (marks if own == len(decomposed) else 0)
        if marks <= _MOST_MARKS:
            kept.append(char)
    return "".join(kept)
