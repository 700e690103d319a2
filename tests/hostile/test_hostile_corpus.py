"""Nasty texts through cleaning, preparing and collating: rows that can be learned, or left out and counted."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_texts import NO_TEXTS, TEXTS, anything, texts
from rich.console import Console

from tall_hf import LastTokenCollator
from tall_hf.data.corpus import CorpusCounts, CorpusSettings, clean_sentences
from tall_hf.data.prepare import _rows, prepare
from tall_hf.data.words import divide_at_last_word, normalize


SOME = settings(max_examples=100, deadline=None, database=None, derandomize=True)


@SOME
@given(text=anything)
def test_normalising_twice_changes_nothing_more(text):
    once = normalize(text, strip_niqqud=True)
    once.encode("utf-8")
    assert normalize(once, strip_niqqud=True) == once
    assert "\0" not in once and once == " ".join(once.split())


@SOME
@given(sources=st.lists(anything, max_size=6))
def test_every_text_is_a_row_or_counted(sources):
    settings_, counts = CorpusSettings(min_words=2, max_words=50), CorpusCounts()
    rows = list(clean_sentences(sources, settings_, counts))
    left_out = counts.empty + counts.too_short + counts.too_long + counts.duplicates
    assert counts.read == len(sources) == len(rows) + left_out
    for row in rows:
        truncated, gap, word = divide_at_last_word(row["sentence"])
        assert (truncated, word) == (row["truncated"], row["missing_word"])
        assert truncated and word and row["sentence"] == truncated + gap + word


@settings(SOME, max_examples=10)
@given(source=anything, translation=texts)
def test_any_row_lies_in_the_embeddings_and_is_the_same_among_others(composed, source, translation):
    """What `tall prepare` makes of a sentence and any translation of it."""
    model, processor = composed("gated")
    config = model.config
    limits = {
        "input_ids": (config.lr_hr_config.vocab_size, config.max_source_length),
        "llm_input_ids": (config.llm_config.vocab_size, config.max_translation_length),
        "labels": (config.hr_lr_config.vocab_size, config.max_target_length),
    }
    cleaned = clean_sentences(["דנה גרה בחיפה", f"{source} {source}"], CorpusSettings(min_words=2), CorpusCounts())
    sentences = [{"sentence": row["sentence"], "truncated": row["truncated"]} for row in cleaned]
    translations = ["Dana lives", translation]
    batch = {name: [row[name] for row in sentences] for name in ("sentence", "truncated")}
    together = _rows(processor, batch | {"translation": translations[: len(sentences)]})
    for i, row in enumerate(sentences):
        for name, (size, length) in limits.items():
            ids = together[name][i]
            assert 0 < len(ids) <= length and 0 <= min(ids) <= max(ids) < size
        labels, [prefix] = together["labels"][i], processor.encode_target([row["truncated"]])
        known = len(labels) - together["continuation_length"][i]
        assert labels[:known] == prefix[:known] and labels[known : known + 1] != prefix[known : known + 1]
        alone = _rows(processor, {name: [value] for name, value in row.items()} | {"translation": [translations[i]]})
        assert {name: values[i] for name, values in together.items()} == {name: v[0] for name, v in alone.items()}


def test_nasty_texts_are_prepared_and_learned(composed, tmp_path):
    model, processor = composed("gated")
    source = [*TEXTS.values(), *NO_TEXTS.values()]
    made = prepare(
        model,
        processor,
        source,
        tmp_path / "data",
        settings=CorpusSettings(min_words=2, max_words=100_000, validation_share=0.1),
        console=Console(quiet=True),
        num_beams=1,
        max_length=8,
    )
    rows = [row for split in made.values() for row in split]
    assert len(rows) > 10
    batch = LastTokenCollator(processor)(rows)
    assert batch["decoder_input_ids"].max() < model.config.hr_lr_config.vocab_size
    with torch.no_grad():
        assert model(**batch).loss.isfinite()
