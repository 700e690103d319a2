"""Words: what is cleaned of the text they stand in, where the last one begins, and what is no part of it."""

import itertools
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tall_hf.data import normalize, split_last_word, strip_punctuation
from tall_hf.data.words import _cut_marks, count_words


# Letters of several scripts with marks, joiners, bidi controls, punctuation, symbols, pictures and all kinds of space.
ALPHABET = "אבגדםןְּׁ״׳\"'־-–.,!?…()[] \t\n\r\u2003\u200d\u200c\u200e\u202b\ufeff\u00adéeu\u0301\u0308ﬤשׁ₪$%°|*#_•C1٣中กำ👩🏽😀\ufe0f\x00\ue000"
texts = st.text(st.sampled_from(ALPHABET), max_size=40) | st.text(max_size=40)


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("  שלום \t עולם \r\n", "שלום עולם"),
        ("\u202bשלום\u202c \u200fעולם\u200e", "שלום עולם"),  # embedding and marks of direction
        ("\u2067שלום\u2069", "שלום"),  # isolate
        ("\ufeffשלום", "שלום"),
        ("שלום\u200bעולם", "שלום עולם"),
        ("שלום\u00a0עולם", "שלום עולם"),
        ("שלום\x00עולם\x07", "שלום עולם"),
        ("e\u0301cole", "école"),
        ("\ufb2aלום", "ש\u05c1לום"),  # presentation form to letter and point
        ("שָׁלוֹם", "שָׁלוֹם"),
        ("שלום 😀 ♪ עולם ■", "שלום עולם"),
        ("שלום👩🏽\u200d🚀עולם", "שלום עולם"),
        ("| שם | * ערך •", "שם ערך"),
        ("C# ו-snake_case", "C# ו-snake_case"),
        ("25° בצל", "25° בצל"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("2 + 2 = 4, 5 €", "2 + 2 = 4, 5 €"),
        ("\ufffdשלום", "שלום"),
        ("", ""),
    ],
)
def test_normalize(raw, clean):
    assert normalize(raw) == clean


def test_niqqud_is_stripped_on_demand_and_maqaf_stays():
    pointed = "בְּרֵאשִׁ֖ית בֵּית־סֵפֶר \ufb2bל"
    assert normalize(pointed, strip_niqqud=True) == "בראשית בית־ספר של"
    assert normalize(pointed) != normalize(pointed, strip_niqqud=True)


@pytest.mark.parametrize(
    "sentence, truncated, word",
    [
        ("הילדה קוראת ספר", "הילדה קוראת", "ספר"),
        ("יש לי חלום.", "יש לי", "חלום"),  # final letters
        ("הוא מלך !", "הוא", "מלך"),
        ("הוא מלך . . .", "הוא", "מלך"),
        ('דנה אמרה: "הלכתי לבית-ספר".', 'דנה אמרה: "הלכתי', "לבית-ספר"),
        ('הוא אמר "שלום"', "הוא אמר", "שלום"),
        ("הוא אמר ”שלום“", "הוא אמר", "שלום"),
        ('הוא שירת בצה"ל', "הוא שירת", 'בצה"ל'),
        ("הוא שירת בצה״ל.", "הוא שירת", "בצה״ל"),
        ("היא לובשת ז'קט", "היא לובשת", "ז'קט"),
        ("היא לובשת ז׳קט,", "היא לובשת", "ז׳קט"),
        ("הוא בבית־הספר", "הוא", "בבית־הספר"),
        ("הוא בא מאי-שם", "הוא בא", "מאי-שם"),
        ("תפוחים, אגסים וכו'", "תפוחים, אגסים", "וכו"),
        ("שָׁלוֹם לְךָ", "שָׁלוֹם", "לְךָ"),  # combining marks stay with their letters
        ("עלה ב 5%", "עלה ב", "5"),
        ("בית - ספר", "בית -", "ספר"),
        ("the dogs don't", "the dogs", "don't"),
        ("שלום", "", "שלום"),
        ("- ... !", "", ""),
        ("", "", ""),
    ],
)
def test_split_last_word(sentence, truncated, word):
    assert split_last_word(sentence) == (truncated, word)


def test_split_last_word_with_a_tokenizer_for_a_script_without_spaces():
    assert split_last_word("我住在北京。", split=lambda text: ["我", "住", "在", "北京", "。"]) == ("我住在", "北京")
    assert count_words("我住在北京。", split=list) == 5


def test_a_tokenizer_that_changes_the_text_is_refused():
    with pytest.raises(ValueError, match="must return parts of the sentence"):
        split_last_word("Dana Lives", split=lambda text: text.lower().split())


def test_strip_punctuation_leaves_what_is_inside():
    assert strip_punctuation('("בצה"ל-לנד")!') == 'בצה"ל-לנד'
    assert strip_punctuation("...") == ""


@given(texts, st.booleans())
@settings(deadline=None)
def test_normalize_twice_changes_nothing_more(text, strip_niqqud):
    once = normalize(text, strip_niqqud)
    assert normalize(once, strip_niqqud) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip() and "  " not in once


@given(texts)
@settings(deadline=None)
def test_split_last_word_rejoins(text):
    sentence = normalize(text)
    truncated, word = split_last_word(sentence)
    assert bool(word) == bool(count_words(sentence))
    assert strip_punctuation(word) == word
    if word:
        whole = f"{truncated} {word}".strip()
        assert split_last_word(whole) == (truncated, word)
        assert sentence.startswith(truncated) and word in sentence[len(truncated) :]
        assert count_words(whole) == count_words(sentence)


# Hebrew with all points and accents, and what other scripts stack; the last signs decompose into several.
POINTED = [*map(chr, range(0x0590, 0x05F5)), *"ệ̣́กำ้ཱི ", "\u0344", "\ufb2a", "\ufb2c"]
MARKS = "א\u05b8\u0591\u0301\u0316\u0344\u0f71\u0f73ệשׁ \u20dd\u034f."


def most_marks(text):
    """Of the runs of combining marks in the decomposed text, the longest."""
    marked = (unicodedata.combining(char) for char in unicodedata.normalize("NFD", text))
    return max((len(list(run)) for is_mark, run in itertools.groupby(marked, bool) if is_mark), default=0)


@given(st.lists(st.tuples(st.sampled_from("אבגדך"), st.text(st.sampled_from(POINTED), max_size=14)), max_size=12))
@settings(deadline=None)
def test_as_many_marks_as_anybody_writes_stay_bit_for_bit(letters):
    text = "".join(letter + marks for letter, marks in letters)
    assert _cut_marks(text) == text


@given(st.text(st.sampled_from(MARKS), max_size=20), st.text(st.sampled_from(MARKS[1:8]), max_size=80), st.booleans())
@settings(deadline=None)
def test_of_more_than_30_marks_in_a_row_the_first_stay(text, marks, strip_niqqud):
    text = f"{text}{marks}{text}"
    cut = _cut_marks(text)
    assert most_marks(cut) <= 30
    assert most_marks(text) > 30 or cut == text
    assert _cut_marks(unicodedata.normalize("NFC", cut)) == unicodedata.normalize("NFC", cut)
    once = normalize(text, strip_niqqud)
    assert normalize(once, strip_niqqud) == once


@pytest.mark.parametrize("strip_niqqud", [False, True])
@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u05b0\u05b8\u05c1\u05bc"])
def test_time_does_not_grow_with_the_square_of_the_marks(marks, strip_niqqud):
    text = "א" + marks * (20_000 // len(marks))
    started = time.process_time()
    clean = normalize(text, strip_niqqud)
    assert time.process_time() - started < 0.5
    assert clean[0] == "א" and len(clean) <= 31
