"""The HTML of the answers; whatever a person or a model wrote is escaped, and stands in its own language's direction."""

import re
from html import escape


# Scripts (ISO 15924) and languages (ISO 639) that are written from right to left. A code's script, if it names one,
# decides: Kashmiri is written in three.
_RTL_SCRIPTS = {"adlm", "arab", "aran", "hebr", "mand", "mend", "nkoo", "rohg", "samr", "syrc", "thaa"}
# fmt: off
_RTL_LANGUAGES = {
    "he", "heb", "iw", "yi", "yid", "ydd", "lad",
    "ar", "ara", "arb", "arz", "ary", "acm", "acq", "aeb", "afb", "ajp", "apc", "apd", "ars", "ayl",
    "fa", "fas", "per", "pes", "prs", "ps", "pus", "pbt", "pst", "ur", "urd", "ug", "uig", "sd", "snd", "ckb", "sdh",
    "dv", "div", "syr", "aii", "arc", "nqo", "sam", "rhg",
    "azb", "pnb", "skr", "lah", "bal", "bgn", "glk", "lrc", "mzn", "bqi", "ks", "kas", "khw",
}
# fmt: on
# A word is a button; the click says which.
ON_CLICK = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-word]");
    if (button) trigger("click", {word: button.dataset.word});
});
"""


def direction(language: str | None) -> str:
    """ "rtl" or "ltr" for a language's code, such as "he", "heb_Hebr" or "he-IL"; "auto" if none is known.

    "auto" leaves it to the browser, which goes by the first letter.
    """
    if not language:
        return "auto"
    first, *others = re.split("[-_]", language.lower())
    scripts = [other for other in others if len(other) == 4]
    rtl = scripts[0] in _RTL_SCRIPTS if scripts else first in _RTL_LANGUAGES
    return "rtl" if rtl else "ltr"


def header(name: str, on_hub: bool) -> str:
    """The title, with a link to the model's page if it has one."""
    title = f"<strong>{escape(name)}</strong>"
    if on_hub:
        title = f'<a href="https://huggingface.co/{escape(name)}" target="_blank" rel="noopener">{title}</a>'
    return (
        f"<header><h1>What comes next?</h1><p>{title} predicts the next words of a sentence by a frozen LLM between two "
        "frozen translators. Click on a word to add it.</p></header>"
    )


def tall_panel(body: str) -> str:
    return _panel("tall", "TALL", "The LLM reads a translation; trained adapters answer.", body)


def naive_panel(body: str) -> str:
    return _panel("naive", "Naive translation", "The LLM adds a word; the whole is translated back.", body)


def _panel(kind, title, subtitle, body):
    return f'<section class="panel {kind}"><h2>{title}</h2><p class="subtitle">{subtitle}</p>{body}</section>'


def message(text: str, kind: str = "hint") -> str:
    """A sentence in place of an answer, of the kind "hint", "wait" or "refusal"."""
    role = ' role="alert"' if kind == "refusal" else ""
    return f'<p class="message {kind}"{role}>{escape(text)}</p>'


def tall_answer(translation: str, words: list[tuple[str, float]], language: str | None, note: str = "") -> str:
    """The translation that the TALL read, and its words with their probabilities as bars."""
    rows = [_row(word, probability) for word, probability in words]
    return _label("The translation that TALL read", translation) + _words(rows, language, note)


def naive_answer(words: list, language: str | None) -> str:
    """What came back, each word with the LLM's own word and the probability of that."""
    rows = [_row(one.word, one.probability, one.english) for one in words]
    best = words[0].sentence if words else ""
    return _label("The best answer, translated back", best, language) + _words(rows, language)


def _label(label, text, language=None):
    text = escape(text) or "—"
    lang = f' lang="{escape(language)}"' if language else ""
    return f'<p class="read"><span class="label">{label}</span><span class="text" dir="auto"{lang}>{text}</span></p>'


def _row(word, probability, english=None):
    share = f"{100 * probability:.1f}%"
    shown = "&lt;0.1%" if share == "0.0%" else share
    # The LLM's word and the probability of it stand together.
    source = "" if english is None else f'<bdi class="english">{escape(english)}</bdi> '
    return (
        f'<li><button type="button" data-word="{escape(word)}" title="Add to the sentence">'
        f'<span class="bar" style="width: {share}"></span><span class="word">{escape(word)}</span>'
        f'<span class="probability"><bdi dir="ltr">{source}{shown}</bdi></span></button></li>'
    )


def _words(rows, language, note=""):
    if not rows:
        return message("No word found.")
    lang = f' lang="{escape(language)}"' if language else ""
    note = message(note) if note else ""
    return f'<ol class="words" dir="{direction(language)}"{lang}>{"".join(rows)}</ol>{note}'
