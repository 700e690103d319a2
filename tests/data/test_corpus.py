"""The corpus: what is left out and why, and which split a sentence falls to."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tall_hf.data import CorpusCounts, CorpusSettings, build_corpus, in_validation
from tall_hf.data.corpus import clean_sentences


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


def test_a_script_without_spaces_is_divided_by_the_split_that_is_given():
    rows = list(clean_sentences(["我住在北京。"], CorpusSettings(split=list), CorpusCounts()))
    assert rows[0] == {"sentence": "我住在北京", "truncated": "我住在北", "missing_word": "京", "is_validation": False}


def test_a_random_word_is_drawn_by_the_sentence_alone_and_leaves_enough_before_it():
    sentences = [f"אחת, שתיים - שלוש {i} ארבע חמש" for i in range(300)]
    settings = CorpusSettings(min_words=3, validation_share=0.2, truncation="random_word")
    rows = {row["sentence"]: row for row in clean_sentences(sentences, settings, CorpusCounts())}
    drawn = set()
    for sentence, row in rows.items():
        assert sentence.startswith(f"{row['truncated']} {row['missing_word']}")
        drawn.add((row["is_validation"], len(row["truncated"].split())))
    # The dash is no word: one of "שלוש", the number, "ארבע" and "חמש" is the word that is missing first.
    assert drawn == {(True, 6), (False, 3), (False, 4), (False, 5), (False, 6)}
    assert list(clean_sentences(sentences[7:8], settings, CorpusCounts())) == [rows[sentences[7]]]


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


def test_all_filtered_away_says_which_filter_took_them(tmp_path):
    with pytest.raises(ValueError, match="Of 3 texts none is left: 1 without any text, 2 shorter than min_words=5"):
        build_corpus(["שלום", "שלום עולם", " "], tmp_path / "c.arrow")
    with pytest.raises(ValueError, match="1 longer than max_words=2"):
        build_corpus(["א ב ג"], tmp_path / "c.arrow", settings=CorpusSettings(2, 2))
    with pytest.raises(ValueError, match="none falls to validation with validation_share=0.001"):
        build_corpus(["א ב ג"], tmp_path / "c.arrow", settings=CorpusSettings(2, validation_share=0.001))
    assert not list(tmp_path.iterdir())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="truncation.*last_word.*random_word.*'middle'"):
        CorpusSettings(truncation="middle")
    with pytest.raises(ValueError, match="min_words=1, max_words=30"):
        CorpusSettings(min_words=1)
    with pytest.raises(ValueError, match="min_words=6, max_words=5"):
        CorpusSettings(6, 5)
    with pytest.raises(ValueError, match="below 1, got 1"):
        CorpusSettings(validation_share=1)
