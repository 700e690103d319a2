"""Text on a card: shown as it is, in its own direction."""

import html
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tall_hf.cards.markup import bar, code_string, direction, escape, table


PLAIN = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))) | st.text(string.printable)


@given(PLAIN)
def test_escaped_text_is_shown_as_it_is_on_one_line(text):
    words = " ".join(text.split())
    [paragraph, inline, _] = MarkdownIt("commonmark", {"html": True}).parse(f"<b>-</b>{escape(text)}<b>-</b>")
    assert paragraph.type == "paragraph_open"
    assert {child.type for child in inline.children} <= {"text", "html_inline", "text_special"}
    shown = "".join(child.content for child in inline.children if child.type != "html_inline")
    assert shown == f"-{words}-"
    assert html.unescape(escape(text)) == words


@pytest.mark.parametrize(
    ("text", "found"), [("שלום world", "rtl"), ("Hello שלום", "ltr"), ("123 مرحبا", "rtl"), ("!?", "ltr"), ("", "ltr")]
)
def test_the_first_letter_decides_the_direction(text, found):
    assert direction(text) == found


@given(PLAIN)
def test_a_string_of_code_is_one_literal_on_one_line(text):
    literal = code_string(text)
    assert "\n" not in literal
    assert isinstance(eval(literal), str)  # noqa: S307


def test_a_bar_is_as_long_as_its_share():
    assert [len(bar(share)) for share in (0, 0.02, 0.5, 1)] == [0, 0, 10, 20]


def test_numbers_stand_on_the_right():
    assert table(["a", "b"], [["x", "1"]], [1]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
