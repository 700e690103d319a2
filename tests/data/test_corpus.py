"""The corpus: what is cleaned, what is left out and why, where the last word begins, and which split a sentence falls to."""

import gzip
import json
import random
import unicodedata

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from tall_hf.data import CorpusSettings, build_corpus, in_validation, normalize, split_last_word, strip_punctuation
from tall_hf.data.corpus import CorpusCounts, clean_sentences, count_words, load_corpus, read_texts


ALL = CorpusSettings(min_words=2, validation_share=0)
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


def characters(sentence):
    return [char for char in sentence if not char.isspace()]


def test_split_last_word_with_a_tokenizer_for_a_script_without_spaces():
    assert split_last_word("我住在北京。", split=lambda text: ["我", "住", "在", "北京", "。"]) == ("我住在", "北京")
    assert count_words("我住在北京。", split=characters) == 5
    rows = list(clean_sentences(["我住在北京。"], CorpusSettings(split=characters), CorpusCounts()))
    assert rows[0] == {"sentence": "我住在北京", "truncated": "我住在北", "missing_word": "京", "is_validation": False}


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


@given(st.lists(st.text("אבגד ", min_size=3, max_size=12), max_size=30), st.integers(0, 1000))
@settings(deadline=None)
def test_the_split_knows_neither_order_nor_other_sentences(sentences, seed):
    corpus_settings = CorpusSettings(min_words=2, validation_share=0.5)

    def splits(some):
        rows = clean_sentences(some, corpus_settings, CorpusCounts())
        return {row["sentence"]: row["is_validation"] for row in rows}

    everything = splits(sentences)
    shuffled = random.Random(seed).sample(sentences, len(sentences))
    assert splits(shuffled) == everything
    half = splits(sentences[::2])
    assert half == {sentence: everything[sentence] for sentence in half}


def test_the_share_of_validation_is_about_what_was_asked_for():
    sentences = [f"משפט מספר {i}" for i in range(5000)]
    assert 0.08 < sum(in_validation(s, 0.1) for s in sentences) / 5000 < 0.12
    assert not any(in_validation(s, 0) for s in sentences)
    # A larger share takes more sentences and lets none go.
    assert all(in_validation(s, 0.3) for s in sentences if in_validation(s, 0.1))


def test_counts_say_what_was_left_out_and_why(tmp_path):
    texts = [
        "אחת שתיים שלוש",
        "אחת שתיים שלוש!",  # a duplicate but for its end
        "\u200fאחת  שתיים שלוש",
        "אחת",
        "אחת - !",  # one word and marks
        "א ב ג ד ה ו",
        "♪ ■",
        None,
        "ארבע חמש שש",
    ]
    corpus, counts = build_corpus(texts, tmp_path / "c.arrow", settings=CorpusSettings(2, 5, validation_share=0))
    assert counts == CorpusCounts(read=9, empty=2, too_short=2, too_long=1, duplicates=2, train=2, validation=0)
    assert corpus["sentence"][:] == ["אחת שתיים שלוש", "ארבע חמש שש"]
    assert corpus["truncated"][:] == ["אחת שתיים", "ארבע חמש"]
    assert counts.table(CorpusSettings()).row_count == 7


def write(path, text, encoding="utf-8"):
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(text.encode(encoding))
    return path


LINES = ["דנה גרה בחיפה", 'הוא אמר "שלום"', "NA null"]


@pytest.fixture
def sources(tmp_path):
    table = [{"number": i, "he": line} for i, line in enumerate(LINES)]
    doubled = [line.replace('"', '""') for line in LINES]
    quoted = "\n".join(f'{i},"{line}"' for i, line in enumerate(doubled))
    tabbed = "\n".join(f"{row['number']}\t{row['he']}" for row in table)
    jsonl = "\n".join(json.dumps(row, ensure_ascii=False) for row in table)
    dataset = Dataset.from_list(table)
    return {
        "txt": (write(tmp_path / "a.txt", "\ufeff" + "\r\n".join(LINES)), None),
        "txt.gz": (write(tmp_path / "a.txt.gz", "\n".join(LINES) + "\n"), None),
        "csv": (write(tmp_path / "a.csv", "number,he\n" + quoted), "he"),
        "csv.gz": (write(tmp_path / "b.csv.gz", "number,he\n" + quoted), "he"),
        "tsv": (write(tmp_path / "a.tsv", "number\the\n" + tabbed), "he"),
        "jsonl": (write(tmp_path / "a.jsonl", jsonl), "he"),
        "jsonl.gz": (write(tmp_path / "b.jsonl.gz", jsonl), "he"),
        "json": (write(tmp_path / "a.json", json.dumps(table, ensure_ascii=False)), "he"),
        "dataset": (dataset, "he"),
        "streaming": (dataset.to_iterable_dataset(), "he"),
        "list": (LINES, None),
    }


@pytest.mark.parametrize(
    "kind",
    ["txt", "txt.gz", "csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "json", "dataset", "streaming", "list"],
)
def test_every_kind_of_source_gives_the_same_corpus(sources, kind, tmp_path):
    source, column = sources[kind]
    corpus, counts = build_corpus(source, tmp_path / "corpus.arrow", column, ALL)
    assert corpus["sentence"][:] == ["דנה גרה בחיפה", "הוא אמר שלום", "NA null"]
    assert counts.read == counts.train == 3
    again = load_corpus(tmp_path / "corpus.arrow")
    assert again._fingerprint == corpus._fingerprint
    assert corpus._fingerprint == build_corpus(LINES, tmp_path / "other.arrow", None, ALL)[0]._fingerprint


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "dataset", "streaming"])
def test_a_column_that_does_not_exist_is_answered_with_those_that_do(sources, kind):
    source, _ = sources[kind]
    for column, named in (("hebrew", "hebrew"), (None, "text")):
        with pytest.raises(ValueError, match=f"no column '{named}'; the columns are 'number', 'he'"):
            list(read_texts(source, column))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "text\nאחת\nשתיים,שלוש\n"), ("b.jsonl", '{"text": "אחת"}\n{"text": "שתיים\n'), ("c.csv", "text\n")],
)
def test_a_broken_table_is_named(tmp_path, name, content):
    with pytest.raises(ValueError, match=f"{name}: "):
        list(read_texts(write(tmp_path / name, content)))


@pytest.mark.parametrize("name", ["bad.txt", "bad.txt.gz", "bad.csv"])
def test_a_file_that_is_not_utf_8_is_refused_with_the_place(tmp_path, name):
    good = "text\nשלום\n"
    path = tmp_path / name
    content = good.encode() + "אב".encode() + "שלום".encode("windows-1255")
    with gzip.open(path, "wb") if name.endswith("gz") else open(path, "wb") as file:
        file.write(content)
    offset = len(good.encode()) + 4
    with pytest.raises(ValueError, match=rf"{name} is not UTF-8: line 3, byte 5 .*offset {offset}.* 0xf9"):
        list(read_texts(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        build_corpus(write(tmp_path / "empty.txt", ""), tmp_path / "c.arrow")
    with pytest.raises(ValueError, match="is empty"):
        build_corpus(write(tmp_path / "empty.csv", ""), tmp_path / "c.arrow")
    with pytest.raises(FileNotFoundError, match="no file"):
        build_corpus(tmp_path / "absent.txt", tmp_path / "c.arrow")
    for name in ("text.pdf", "text", "text.gz"):
        with pytest.raises(ValueError, match=r"\.txt, \.text, \.csv, \.tsv, \.json"):
            build_corpus(write(tmp_path / name, "שלום"), tmp_path / "c.arrow")
    whole = write(tmp_path / "whole.txt.gz", "דנה גרה בחיפה\n" * 1000).read_bytes()
    (tmp_path / "cut.txt.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        build_corpus(tmp_path / "cut.txt.gz", tmp_path / "c.arrow")
    with pytest.raises(ValueError, match="plain text and has no column"):
        build_corpus(write(tmp_path / "plain.txt", "שלום"), tmp_path / "c.arrow", "he")
    assert not list(tmp_path.glob("*c.arrow*"))


def test_all_filtered_away_says_which_filter_took_them(tmp_path):
    with pytest.raises(ValueError, match="Of 3 texts none is left: 1 without any text, 2 shorter than min_words=5"):
        build_corpus(["שלום", "שלום עולם", " "], tmp_path / "c.arrow")
    with pytest.raises(ValueError, match="1 longer than max_words=2"):
        build_corpus(["א ב ג"], tmp_path / "c.arrow", settings=CorpusSettings(2, 2))
    with pytest.raises(ValueError, match="none falls to validation with validation_share=0.001"):
        build_corpus(["א ב ג"], tmp_path / "c.arrow", settings=CorpusSettings(2, validation_share=0.001))
    assert not list(tmp_path.iterdir())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="min_words=1, max_words=30"):
        CorpusSettings(min_words=1)
    with pytest.raises(ValueError, match="min_words=6, max_words=5"):
        CorpusSettings(6, 5)
    with pytest.raises(ValueError, match="below 1, got 1"):
        CorpusSettings(validation_share=1)
    with pytest.raises(ValueError, match="DatasetDict with splits train"):
        list(read_texts(DatasetDict({"train": Dataset.from_list([{"text": "א"}])}), "text"))
    with pytest.raises(ValueError, match="Row 2 holds int 3"):
        list(read_texts(["א", 3]))
    with pytest.raises(ValueError, match="Row 1 holds int 0"):
        list(read_texts(Dataset.from_list([{"number": 0}]), "number"))
