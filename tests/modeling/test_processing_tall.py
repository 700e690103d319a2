"""TALLProcessor: three tokenizers that stay apart, padding sides, truncation with a warning, word pieces, bad input."""

import copy

import parts
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tall_hf import TALLProcessor
from tall_hf.modeling.text_rows_tall import pad_rows


@pytest.fixture
def processor(composed):
    return composed("gated")[1]


@pytest.fixture
def warnings_of(monkeypatch):
    """What the processor warns of."""
    from tall_hf.modeling import text_rows_tall

    seen = []
    monkeypatch.setattr(text_rows_tall.logger, "warning", seen.append)
    return seen


def test_each_input_is_its_tokenizers_own(processor):
    rows = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS)
    assert rows["input_ids"] == processor.source_tokenizer(parts.SENTENCES)["input_ids"]
    assert rows["llm_input_ids"] == processor.llm_tokenizer(parts.TRANSLATIONS)["input_ids"]
    target = processor.tokenizer(text_target=parts.SENTENCES, add_special_tokens=False)["input_ids"]
    assert rows["decoder_input_ids"] == [processor.decoder_start_token_ids + row for row in target]
    for name in ("", "llm_", "decoder_"):
        ids, masks = rows[f"{name}input_ids"], rows[f"{name}attention_mask"]
        assert masks == [[1] * len(row) for row in ids]
    assert list(rows) == processor.model_input_names or set(rows) == set(processor.model_input_names)


def test_vocabularies_are_distinct(processor):
    vocabularies = [
        one.get_vocab() for one in (processor.tokenizer, processor.source_tokenizer, processor.llm_tokenizer)
    ]
    assert len({tuple(sorted(one.items())) for one in vocabularies}) == 3


def test_tensors_are_padded_where_the_model_wants_them(composed, translator):
    _, processor = composed("gated", translator)
    rows = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS)
    tensors = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    assert set(tensors) == set(processor.model_input_names)
    for name, side in (("", "right"), ("llm_", "right"), ("decoder_", "left")):
        ids, mask = tensors[f"{name}input_ids"], tensors[f"{name}attention_mask"]
        length = max(len(row) for row in rows[f"{name}input_ids"])
        assert ids.shape == mask.shape == (len(parts.SENTENCES), length)
        for row, got, kept in zip(rows[f"{name}input_ids"], ids.tolist(), mask.tolist(), strict=True):
            padding = [0] * (length - len(row))
            assert kept == ([1] * len(row) + padding if side == "right" else padding + [1] * len(row))
            assert [token for token, keep in zip(got, kept, strict=True) if keep] == row
    padding = tensors["decoder_input_ids"][tensors["decoder_attention_mask"] == 0]
    assert (padding == processor.decoder_start_token_ids[0]).all()


def test_padding_sides_do_not_depend_on_the_tokenizers(processor):
    processor = copy.deepcopy(processor)
    before = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    for one in (processor.tokenizer, processor.source_tokenizer, processor.llm_tokenizer):
        one.padding_side = "left"
    after = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_text_is_a_batch_of_one(processor):
    one = processor(text="שלום", translations="Hello", return_tensors="pt")
    many = processor(text=["שלום"], translations=["Hello"], return_tensors="pt")
    assert all(torch.equal(one[name], many[name]) for name in many)


def test_training_rows_have_the_whole_target_without_special_tokens(processor):
    rows = processor(text=["דנה גרה"], translations=["Dana lives"], text_target=["דנה גרה בחיפה"])
    assert set(rows) == {"input_ids", "llm_input_ids", "labels"}
    assert processor.decode_target(rows["labels"][0]) == "דנה גרה בחיפה"
    assert not set(rows["labels"][0]) & set(processor.tokenizer.all_special_ids)
    with pytest.raises(ValueError, match="leave out `return_tensors`"):
        processor(text=["a"], translations=["b"], text_target=["c"], return_tensors="pt")


def test_text_round_trip(composed, translator):
    _, processor = composed("gated", translator)
    for text in parts.SENTENCES:
        assert processor.decode_target(processor.encode_target(text)[0]) == text


def test_word_pieces_tell_words_apart(composed, translator):
    model, processor = composed("gated", translator)
    size = model.final_logits_bias.shape[-1]
    starts, continuations = processor.word_pieces(size)
    assert len(starts) == len(continuations) == size
    assert not (starts & continuations).any()
    for index in processor.tokenizer.all_special_ids:
        assert index >= size or not (starts | continuations)[index]
    for text in parts.SENTENCES:
        [ids] = processor.encode_target(text)
        assert (starts | continuations)[ids].all()
        assert int(starts[ids].sum()) == len(text.split())
        assert starts[ids[0]]


def test_languages_are_no_words(composed):
    _, processor = composed("gated", "nllb")
    starts, continuations = processor.word_pieces(processor.tokenizer.vocab_size + 300)
    for code in ("heb_Hebr", "eng_Latn"):
        index = processor.tokenizer.convert_tokens_to_ids(code)
        assert not starts[index]
        assert not continuations[index]


def test_long_inputs_keep_their_end_with_a_warning(composed, warnings_of):
    model, processor = composed("gated")
    limit, target_limit = 64, 72
    words = ["שלום"] * 200 + ["ספר", "על", "ים"]
    text, translation = " ".join(words), " ".join(["Hello"] * 200 + ["a", "big", "sea"])
    inputs = processor(text=text, translations=translation, return_tensors="pt")
    kept = {name: inputs[f"{name}input_ids"][0].tolist() for name in ("", "llm_", "decoder_")}
    assert len(kept[""]) == len(kept["llm_"]) == limit
    assert len(kept["decoder_"]) == target_limit - processor.reserved_target_length
    end = processor.source_tokenizer(text)["input_ids"]
    assert kept[""] == end[-limit:]
    assert kept["llm_"] == processor.llm_tokenizer(translation)["input_ids"][-limit:]
    assert kept["decoder_"][0] == processor.decoder_start_token_ids[0]
    assert kept["decoder_"][1:] == processor.encode_target(text)[0][-len(kept["decoder_"]) + 1 :]
    assert [next(w for w in ("source", "translation", "prefix") if w in text) for text in warnings_of] == [
        "source",
        "translation",
        "prefix",
    ]
    assert all(f"cut to its last {n}" in text for n, text in zip((64, 64, 39), warnings_of, strict=True))
    # There is room left to go on, and nothing crashes in an embedding.
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=32)
    assert generated.shape[1] > inputs["decoder_input_ids"].shape[1]
    assert model.next_words(text, processor, translations=[translation])[0]
    assert model.complete(text, processor, max_words=2)[0].startswith(text)
    assert len(model.translate([text], processor)) == 1


def test_a_sentence_that_is_cut_keeps_the_language_it_is_translated_into(fresh):
    _, processor = fresh("gated")
    tokenizer = processor.source_tokenizer
    tokenizer.encoder[">>eng<<"] = 7
    processor.pivot_lang, processor.max_source_length = "eng", 12
    texts = ["דנה גרה", " ".join(["שלום"] * 30 + ["ספר", "על", "ים"]), ">>fra<< דנה גרה"]
    read = [tokenizer(f" {text}")["input_ids"] for text in texts]
    assert len(read[0]) < 11 < 30 < len(read[1])
    assert processor.encode_source(texts)["input_ids"] == [[7] + row[-11:] for row in read]
    processor.max_source_length = None
    assert processor.encode_source(texts)["input_ids"] == [[7, *row] for row in read]


def test_texts_that_fit_are_not_cut(processor, warnings_of):
    processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    assert warnings_of == []


def test_generation_stops_where_positions_end(composed):
    model, processor = composed("gated")
    inputs = processor(text="שלום", translations="Hello", return_tensors="pt")
    with pytest.raises(ValueError, match="`decoder_input_ids` reaches 73 tokens, but there are positions for 72 only"):
        model.generate(**inputs, do_sample=False, max_new_tokens=100, min_new_tokens=90)


@pytest.mark.parametrize("text", ["", " ", "שלום", "?", "🙂", "a\nb", "\u200f"])
@pytest.mark.parametrize("translation", ["", " ", "Hello", "🙂"])
def test_unusual_texts_reach_the_model(composed, text, translation):
    model, processor = composed("gated")
    inputs = processor(text=[text, "דנה גרה"], translations=[translation, "Dana lives"], return_tensors="pt")
    for name in ("input_ids", "llm_input_ids", "decoder_input_ids"):
        assert inputs[name.replace("input_ids", "attention_mask")].sum(dim=1).min() >= 1, name
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()
    assert len(model.next_words([text], processor, translations=[translation], top_k=3)[0]) == 3
    assert model.complete(text, processor, max_words=1, translations=[translation])[0].startswith(text.rstrip())


@pytest.mark.parametrize(
    ("text", "translations", "message"),
    [
        (["a", "b"], ["c"], "Got 1 translations for 2 texts; pass one for each text"),
        ("a", ["b", "c"], "Got 2 translations for 1 texts"),
        (["a"], None, r"`translations` are missing.*model.translate\(text, processor\)"),
    ],
)
def test_numbers_of_texts_must_agree(processor, text, translations, message):
    with pytest.raises(ValueError, match=message):
        processor(text=text, translations=translations)
    with pytest.raises(ValueError, match="Got 2 target texts for 1 texts"):
        processor(text="a", translations="b", text_target=["c", "d"])


@pytest.mark.parametrize(
    ("wrong", "named"), [(3, "int"), (None, "NoneType"), (["a", None], "list holding NoneType"), ({"a": 1}, "dict")]
)
def test_what_is_not_text_is_refused(composed, wrong, named):
    model, processor = composed("gated")
    for call in (
        lambda: processor(text=wrong, translations="a"),
        lambda: model.translate(wrong, processor),
        lambda: model.next_words(wrong, processor),
        lambda: model.complete(wrong, processor),
    ):
        with pytest.raises(TypeError, match=f"Expected a text or a list of texts, got .*{named}"):
            call()


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_an_llm_without_padding_token_pads_with_its_end(composed, part, family):
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(part(family)).pad_token_id is None
    tokenizer = composed("gated", "marian", family)[1].llm_tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_tokenizers_that_cannot_pad_are_refused(processor):
    bare = PreTrainedTokenizerFast(tokenizer_object=processor.llm_tokenizer.backend_tokenizer)
    tokenizers = {"tokenizer": processor.tokenizer, "source_tokenizer": processor.source_tokenizer}
    with pytest.raises(ValueError, match="has no padding and no end-of-text token; set its `pad_token`"):
        TALLProcessor(**tokenizers, llm_tokenizer=bare)


def test_pad_rows():
    ids, mask = pad_rows([[1, 2, 3], [4]], 9, "left")
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = pad_rows([[1, 2, 3], []], 9, "right")
    assert ids.tolist() == [[1, 2, 3], [9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert [tensor.shape for tensor in pad_rows([], 9, "left")] == [(0, 0), (0, 0)]


def test_cutting_a_text_leaves_no_trace_in_what_is_saved(fresh, tmp_path):
    _, processor = fresh("gated")
    processor.save_pretrained(tmp_path / "before")
    processor(text="דנה", translations="Dana lives in Haifa " * 60)
    processor.save_pretrained(tmp_path / "after")
    files = [path.relative_to(tmp_path / "before") for path in (tmp_path / "before").rglob("*.json")]
    assert len(files) > 4
    for file in files:
        assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes(), file
