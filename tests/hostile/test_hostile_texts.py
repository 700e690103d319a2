"""Nasty texts through processors, models and pipeline: an answer of its own for each, and a clear error for what is no text."""

import math

import parts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_texts import NO_TEXTS, SPECIAL_TOKENS, TEXTS, texts

from tall_hf.modeling.pipeline_tall import TALLTextGenerationPipeline


NEIGHBOUR = parts.SENTENCES[1]
SHORT = [text for text in TEXTS.values() if len(text) < 10_000]
LLMS = dict(zip(parts.TRANSLATORS, ("qwen2", "llama", "bloom", "opt"), strict=True))
FEW = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def check_rows(model, inputs):
    """Each row has a token, has positions for all of them, and lies in the embeddings."""
    config = model.config
    bounds = {
        "input_ids": (config.lr_hr_config.vocab_size, config.max_source_length),
        "llm_input_ids": (config.llm_config.get_text_config().vocab_size, config.max_translation_length),
        "decoder_input_ids": (config.hr_lr_config.vocab_size, config.max_target_length),
    }
    for name, (size, positions) in bounds.items():
        for row in inputs[name]:
            assert 0 < len(row) <= positions
            assert 0 <= min(row) <= max(row) < size


@pytest.mark.parametrize("translator", LLMS)
def test_rows_lie_in_the_embeddings(composed, translator):
    model, processor = composed("gated", translator, LLMS[translator])
    everything = list(TEXTS.values())
    check_rows(model, processor(text=everything, translations=everything))


@FEW
@given(text=texts, translation=texts)
def test_rows_of_any_text_lie_in_the_embeddings(composed, text, translation):
    for translator, llm in LLMS.items():
        model, processor = composed("gated", translator, llm)
        alone = processor(text=text, translations=translation)
        check_rows(model, alone)
        both = processor(text=[NEIGHBOUR, text], translations=["", translation])
        assert {name: both[name][1] for name in alone} == {name: rows[0] for name, rows in alone.items()}


@pytest.mark.parametrize("text", NO_TEXTS.values(), ids=NO_TEXTS)
def test_what_is_no_text_is_refused_with_its_place(composed, fused, text):
    model, processor = composed("gated")
    fusion, fusion_processor = fused()
    for call in (
        lambda: processor(text=[NEIGHBOUR, text], translations=["", ""]),
        lambda: processor(text="", translations=text),
        lambda: processor.encode_target(text),
        lambda: model.translate(text, processor),
        lambda: model.next_words(text, processor),
        lambda: model.complete(text, processor),
        lambda: fusion_processor(text=text),
        lambda: fusion_processor(text="", prompt=text),
        lambda: fusion_processor(text="", text_target=text),
        lambda: fusion.classify("", fusion_processor, ["a", text]),
    ):
        with pytest.raises(ValueError, match="half of a surrogate pair") as refused:
            call()
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("translator", ["marian", "nllb"])
def test_each_text_gets_the_answer_it_gets_among_others(composed, translator):
    model, processor = composed("gated", translator, LLMS[translator])
    batch = [NEIGHBOUR, *SHORT]

    def logits(batch):
        inputs = processor(text=batch, translations=batch, return_tensors="pt")
        with torch.no_grad():
            return model(**inputs).logits[:, -1]  # prefixes stand on the right

    together = logits(batch)
    assert together.isfinite().all()
    torch.testing.assert_close(logits(batch[:1]), together[:1], atol=1e-4, rtol=1e-4)
    half = len(batch) // 2
    backwards = torch.cat([logits(batch[half:][::-1]), logits(batch[:half][::-1])]).flip(0)
    torch.testing.assert_close(backwards, together, atol=1e-4, rtol=1e-4)


def test_next_words_and_completion_of_all_at_once(composed):
    model, processor = composed("gated")
    batch = [NEIGHBOUR, *SHORT]
    translations = model.translate(batch, processor)
    assert translations[0] == model.translate(NEIGHBOUR, processor)[0]
    found = model.next_words(batch, processor, top_k=3, translations=translations)
    for words in found:
        assert 0 < len(words) <= 3
        assert all(0 < probability <= 1 + 1e-6 for _, probability in words)
        assert math.fsum(probability for _, probability in words) <= 1 + 1e-5
    [alone] = model.next_words(NEIGHBOUR, processor, top_k=3)
    assert [word for word, _ in found[0]] == [word for word, _ in alone]
    assert [probability for _, probability in found[0]] == pytest.approx([p for _, p in alone], rel=1e-3)
    completed = model.complete(batch, processor, max_words=1, translations=translations)
    for text, whole in zip(batch, completed, strict=True):
        assert whole.startswith(text.rstrip())
    assert completed[0] == model.complete(NEIGHBOUR, processor, max_words=1)[0]


@settings(FEW, max_examples=10)
@given(text=texts, translation=texts, num_beams=st.integers(1, 3), do_sample=st.booleans())
def test_generate_goes_on_from_any_text(composed, text, translation, num_beams, do_sample):
    model, processor = composed("gated")
    short = parts.SENTENCES[4]  # padded beside most texts
    inputs = processor(text=[short, text], translations=["Dana", translation], return_tensors="pt")
    options = {"max_new_tokens": 3, "num_beams": num_beams, "do_sample": do_sample}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    torch.manual_seed(0)
    together = model.generate(**inputs, **options)
    given, rows = inputs["decoder_input_ids"], together.sequences
    assert torch.equal(rows[:, : given.shape[1]], given)
    written = rows[:, given.shape[1] :]
    assert written.shape[1] <= 3 and 0 <= written.min() <= written.max() < model.config.hr_lr_config.vocab_size
    for row in written:
        processor.decode_target(row.tolist()).encode("utf-8")
    if not do_sample:
        alone = model.generate(**processor(text=short, translations="Dana", return_tensors="pt"), **options)
        torch.testing.assert_close(together.scores[0][0], alone.scores[0][0], atol=1e-4, rtol=1e-4)


@settings(FEW, max_examples=5)
@given(text=texts)
def test_next_words_and_the_pipeline_answer_any_text(composed, text):
    model, processor = composed("gated")
    pipe = TALLTextGenerationPipeline(model=model, processor=processor, task="text-generation")
    [words] = model.next_words(text, processor, top_k=2, translations=[""])
    assert 0 < len(words) <= 2 and all(0 < probability <= 1 + 1e-6 for _, probability in words)
    # What reads the text and its translation anew says it alike, beside a neighbour too.
    alone, [_, beside] = pipe(text, top_k=2), pipe([NEIGHBOUR, text], top_k=2, batch_size=2)
    assert [one["score"] for one in alone] == pytest.approx([one["score"] for one in beside], rel=1e-3)
    assert all(0 < one["score"] <= 1 + 1e-6 for one in alone)


def test_texts_of_100000_characters(composed):
    model, processor = composed("gated")
    long = [text for text in TEXTS.values() if len(text) >= 10_000]
    assert len(long) == 4
    for [(_, probability)] in model.next_words(long, processor, top_k=1, translations=[""] * 4):
        assert 0 < probability <= 1 + 1e-6
    pipe = TALLTextGenerationPipeline(model=model, processor=processor, task="text-generation")
    for text, [answer] in zip(long, pipe(long, top_k=1), strict=True):
        assert 0 < answer["score"] <= 1 + 1e-6
        [continued] = model.complete([text], processor, max_words=1)
        continued.encode("utf-8")


def test_the_pipeline(composed):
    model, processor = composed("gated")
    pipe = TALLTextGenerationPipeline(model=model, processor=processor, task="text-generation")
    answers = pipe(SHORT, batch_size=32, top_k=1)
    assert len(answers) == len(SHORT)
    assert all(0 < answer[0]["score"] <= 1 + 1e-6 for answer in answers)
    for wrong in (None, 3, b"bytes", ["a", None]):
        with pytest.raises(TypeError, match="Expected a text"):
            pipe(wrong, top_k=1)


def test_a_layer_fusion_model(fused):
    model, processor = fused()
    batch = [NEIGHBOUR, *SHORT]
    inputs = processor(text=batch, prompt="It is", return_tensors="pt")
    assert inputs["source_input_ids"].max() < model.config.encoder_config.vocab_size
    assert inputs["input_ids"].max() < model.config.llm_config.vocab_size
    with torch.no_grad():
        together = model(**inputs).logits[:, -1]
        alone = model(**processor(text=NEIGHBOUR, prompt="It is", return_tensors="pt")).logits[:, -1]
    assert together.isfinite().all()
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == len(batch)
    longest = max(TEXTS.values(), key=len)
    inputs = processor(text=longest, prompt="It is", return_tensors="pt")
    assert inputs["source_input_ids"].shape[1] <= model.config.encoder_config.max_position_embeddings
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == 1
    for found in model.classify(batch, processor, ["Dana", "Haifa"], prompt="It is", batch_size=32):
        assert math.fsum(probability for _, probability in found) == pytest.approx(1)
    with pytest.raises(ValueError, match="there are positions for 80 only"):
        model(**processor(text="", prompt="א" * 100, return_tensors="pt"))


# --- special tokens in a text ----------------------------------------------------------------------------------------


def special_ids(tokenizer):
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


# mBART's vocabulary has `</s>` among its pieces, and its tokenizer finds it there.
@pytest.mark.parametrize("translator", ["marian", "m2m_100", "nllb"])
@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_in_a_text_are_text(composed, translator, token):
    if translator == "marian" and token in ("</s>", "<pad>"):
        pytest.skip(
            "the tiny vocabulary has no letter of it: sentencepiece makes one piece of it, which is a special token"
        )
    _, processor = composed("gated", translator, LLMS[translator])
    inputs = processor(text=[f"דנה {token}", ""], translations=[f"Dana {token}", ""])
    for name, tokenizer in (("input_ids", processor.source_tokenizer), ("llm_input_ids", processor.llm_tokenizer)):
        row, around = inputs[name]
        special = special_ids(tokenizer)
        expected = around if name == "input_ids" else []  # an empty translation still is one token
        assert [index for index in row if index in special] == [index for index in expected if index in special]
    assert not special_ids(processor.tokenizer) & set(processor.encode_target(f"דנה {token}")[0])


@pytest.mark.parametrize("code", [">>heb<<", ">>fra<< ", ">>en_he<<>>he<<", ">> << "])
def test_a_text_names_no_language_for_a_marian_translator(composed, code):
    _, processor = composed("gated")
    first = processor.tokenizer.convert_tokens_to_ids("▁")
    for rows in (processor.encode_source(f"{code}דנה")["input_ids"], processor.encode_target(f"{code}דנה")):
        assert rows[0][0] == first  # a language would stand before it


def test_special_tokens_of_a_prompt_are_special_unless_the_source_is_repeated(fused, monkeypatch):
    _, processor = fused()
    end = processor.tokenizer.eos_token_id

    def count(**texts):
        return processor(**texts)["input_ids"][0].count(end) - processor(text="a")["input_ids"][0].count(end)

    padding = processor.tokenizer.pad_token_id == end  # this LLM has no other, and it holds the places of the source
    assert padding
    assert count(text="a", prompt="</s>") == 1
    assert processor(text="</s>")["source_input_ids"][0].count(processor.source_tokenizer.eos_token_id) == 1
    assert processor(text="a", text_target="</s>")["labels"][0].count(end) == 1
    monkeypatch.setattr(processor, "repeat_source", True)
    row, types = (processor(text="</s>", prompt="</s>")[name][0] for name in ("input_ids", "mm_token_type_ids"))
    assert end not in [index for index, kind in zip(row, types, strict=True) if kind == 0]
