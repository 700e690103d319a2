"""Text of users and models made safe for the Markdown and HTML of a card, each in the direction it is written in."""

import html
import re
import string
import unicodedata
from collections.abc import Sequence

from tall_hf.data.words import normalize


# What may mean something to Markdown where it stands; the rest of ASCII's punctuation does not inside a line.
_SIGNIFICANT = re.compile(f"[{re.escape(''.join(set(string.punctuation) - set(',.;-?!()%&')))}]")
_BAR_WIDTH = 20


def escape(text: str) -> str:
    """The text on one line, which Markdown and HTML both show as it is: no mark-up, no link, no end of a table's cell."""
    text = _SIGNIFICANT.sub(lambda match: f"&#{ord(match[0])};", " ".join(text.replace("&", "&amp;").split()))
    # GitHub's Markdown makes links of these.
    return re.sub(r"(?i)\bwww\.", lambda match: f"{match[0][:-1]}&#46;", text)


def direction(text: str) -> str:
    """ "rtl" or "ltr", by the first letter that has a direction; "ltr" where none has."""
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in ("R", "AL"):
            return "rtl"
        if kind == "L":
            return "ltr"
    return "ltr"


def directed(text: str) -> str:
    """The text, escaped and without marks of direction, in a span of its own direction."""
    text = normalize(text)
    return f'<span dir="{direction(text)}">{escape(text)}</span>'


def code(text: str) -> str:
    """A name in the type of code; a span of backticks would show the escapes as they are."""
    return f"<code>{escape(text)}</code>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A Markdown table of cells that are safe already, with a line's end.

    Args:
        head: titles of the columns.
        rows: cells, as many a row as there are titles.
        numbers: indices of the columns that stand on the right.
    """
    rule = ["---:" if index in numbers else "---" for index in range(len(head))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


def code_string(text: str) -> str:
    """The text as a string of Python's on one line of a fenced block."""
    text = normalize(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def bar(share: float) -> str:
    """A bar of blocks as long as a share from 0 to 1; whole ones alone, which look the same from either side."""
    return "█" * round(share * _BAR_WIDTH)


def percent(share: float) -> str:
    """A share as text, such as "99.6%"."""
    return f"{share:.1%}"


def interval(bounds: Sequence[float]) -> str:
    """An interval of shares as text, such as "98.7 to 99.8%"."""
    low, high = bounds
    return f"{100 * low:.1f} to {100 * high:.1f}%"


def link(repo_id: str, revision: str | None = None) -> str:
    """A link to a repository on the Hub, at a revision."""
    url = f"https://huggingface.co/{html.escape(repo_id)}"
    return f"[{escape(repo_id)}]({url}{f'/tree/{html.escape(revision)}' if revision else ''})"
