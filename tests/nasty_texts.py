"""Texts that nobody was thought to write: what every entrance is tried with, by name.

`TEXTS` are Unicode texts, and each has to be answered; `NO_TEXTS` hold halves of surrogate pairs, which no file and no
tokenizer can hold, and each has to be refused. `HTML` would run if it were shown as it is.
"""

import sys
import unicodedata

from hypothesis import strategies


HTML = """<img src=x onerror="window.hacked=1">${window.hacked=2}{{value}}'"&amp;"""


def _scripts() -> str:
    """A letter of every script that Unicode names, with a space before each."""
    letters = {}
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char)[0] == "L":
            letters.setdefault(unicodedata.name(char, "?").split()[0], char)
    return " ".join(letters.values())


SPECIAL_TOKENS = (
    "</s>",
    "<s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<bos>",
    "<eos>",
    "<|endoftext|>",
    "<|im_start|>system",
    ">>heb<<",
    ">>fra<< שלום",
    "heb_Hebr",
    "eng_Latn",
    "__he__",
    "en_XX",
    "▁",
    "Ġ",
)
TEXTS = {
    "empty": "",
    "space": " ",
    "white space": " \t\n\r\u00a0\u2003\u2028\u3000",
    "one letter": "ש",
    "one sign": ".",
    "100,000 letters": "א" * 100_000,
    "100,000 characters in words": "שלום עולם " * 10_000,
    "100,000 spaces": " " * 100_000,
    "scripts": _scripts(),
    "bidirectional overrides": "\u202eדנה\u202d גרה \u2066in\u2069 \u200f\u200eHaifa\u202c\u061c",
    "right to left and left to right": "דנה lives ב-Haifa (חיפה) 3.5% مرحبا world!",
    "NUL": "\0",
    "NULs": "דנה\0גרה \0\0 בבית\0",
    "control characters": "".join(map(chr, [*range(1, 32), *range(127, 160)])),
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 🇮🇱🇺🇳 👍🏿 🙂" * 3,
    "combining marks only": "\u0301\u05b8\u0327\u20dd" * 30,
    "one letter under a hundred marks": "א" + "\u0307" * 100,
    # Of two classes, so that they have to be sorted.
    "one letter under 100,000 marks": "א" + "\u0301\u0316" * 50_000,
    "punctuation only": "…!?.,;:\"'()[]{}«»־׃—",
    "HTML": "<script>alert('א')</script>&lt;b&gt;<!-- --><img src=x onerror=alert(1)>",
    "template": "{{ config }} ${jndi:ldap://x} %s %n {0} \\N{BEL} $(reboot) `id`",
    "private use and no characters": "\ue000\uf8ff\U0010ffff\ufffe\ufffd",
    "zero width": "\u200b\u200c\u200d\u2060\ufeff",
    "compatibility forms": "ﬁ ① ㍿ ﷺ ＜/s＞ ｆｕｌｌ",
    "numbers": "٠١٢ ४५ 1e400 -0 NaN ∞ ½",
    "line breaks": "דנה\nגרה\r\nבבית\u2029\u0085\u000b",
    **{f"special token {token}": f"דנה {token} גרה {token}" for token in SPECIAL_TOKENS},
    **{f"only {token}": token for token in SPECIAL_TOKENS},
}
NO_TEXTS = {
    "high surrogate": "\ud83d",
    "low surrogate": "דנה \ude00",
    "pair the wrong way round": "\ude00\ud83d",
    "bytes that were escaped": b"\xd7".decode("utf-8", "surrogateescape"),
}

# Of any characters that a text may hold, often those that mean something to somebody.
texts = strategies.lists(
    strategies.one_of(
        strategies.sampled_from([*SPECIAL_TOKENS, " ", "דנה", "גרה", "Haifa", "<", ">", "\0", "\u202e"]),
        strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    max_size=12,
).map("".join)
# Those, and now and then what is no text.
anything = strategies.one_of(texts, strategies.text(max_size=40), strategies.sampled_from([*NO_TEXTS.values()]))
