"""Naive translation: knows the little world's facts where word order agrees, and gives its words in rank order."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.back_translation import BackTranslator
from tall_hf.evaluation.approaches.naive import Naive
from tall_hf.evaluation.build import model_loader
from tall_hf.microworld import World, component_path


@pytest.fixture(scope="module")
def naive():
    return Naive(
        model_loader(AutoModelForCausalLM, component_path("llm")),
        model_loader(AutoModelForSeq2SeqLM, component_path("hr_lr")),
    )


@pytest.fixture(scope="module")
def records():
    held_out = World().records(0)[1]
    return {kind: [r for r in held_out if r.kind == kind][:24] for kind in ("same_order", "different_order")}


def ask(naive, records, protocol="clean", top_k=5, end=""):
    questions = [Question(r.truncated, r.missing_word, r.english_truncated + end) for r in records]
    return naive.answer(questions, protocol, top_k)


def right(answers, records):
    return sum(a.words[:1] == (r.missing_word,) for a, r in zip(answers, records, strict=True)) / len(records)


def test_right_where_word_order_agrees_and_wrong_where_it_differs(naive, records):
    same, different = (ask(naive, records[kind]) for kind in ("same_order", "different_order"))
    assert right(same, records["same_order"]) >= 0.9
    assert right(different, records["different_order"]) <= 0.5
    assert all(answer.log_probability is None for answer in same)
    for answer, record in zip(same, records["same_order"], strict=True):
        assert len(set(answer.words)) == len(answer.words) <= 5
        if answer.words[0] == record.missing_word:
            assert answer.translation == record.english


def test_the_full_stop_of_a_translator_is_taken_off(naive, records):
    assert ask(naive, records["same_order"], end=".") == ask(naive, records["same_order"])


def test_fewer_words_are_the_first_of_more(naive, records):
    one, five = (ask(naive, records["same_order"][:6], top_k=k) for k in (1, 5))
    assert [answer.words for answer in one] == [answer.words[:1] for answer in five]


def test_an_answer_does_not_depend_on_its_batch(naive, records):
    together = ask(naive, records["same_order"][:6])
    assert together == [ask(naive, [record])[0] for record in records["same_order"][:6]]


def test_the_paper_samples_one_word(naive, records):
    torch.manual_seed(0)
    answers = ask(naive, records["same_order"], "paper")
    assert all(len(answer.words) <= 1 for answer in answers)
    assert right(answers, records["same_order"]) >= 0.8


def test_an_empty_translation_still_has_an_answer(naive):
    [answer] = naive.answer([Question("שלום", "עולם", "")], "clean")
    assert isinstance(answer.words, tuple)


def test_settings_name_both_models_and_languages(naive):
    swapped = Naive(
        model_loader(AutoModelForCausalLM, component_path("llm_permuted")),
        model_loader(AutoModelForSeq2SeqLM, component_path("hr_lr")),
    )
    assert naive.settings()["llm"] != swapped.settings()["llm"]
    assert naive.settings()["hr_lr"] == swapped.settings()["hr_lr"]


@pytest.mark.parametrize(
    ("kind", "source_lang", "pivot_lang"),
    [("m2m_100", "he", "en"), ("nllb", "heb_Hebr", "eng_Latn"), ("mbart50", "he_IL", "en_XX")],
)
def test_translators_of_many_languages_read_and_write_their_codes(part, monkeypatch, kind, source_lang, pivot_lang):
    model, tokenizer = model_loader(AutoModelForSeq2SeqLM, part(kind))()
    back = BackTranslator(model, tokenizer, source_lang, pivot_lang)
    seen = {}
    generate = model.generate

    def watch(**inputs):
        seen["read"], seen["written"] = inputs["input_ids"], generate(**inputs)
        return seen["written"]

    monkeypatch.setattr(model, "generate", watch)
    assert len(back(["Dana lives", "", "Hello world"])) == 3

    def language(code):
        return tokenizer.get_lang_id(code) if kind == "m2m_100" else tokenizer.convert_tokens_to_ids(code)

    assert (seen["read"] == language(pivot_lang)).sum() == 2
    assert seen["written"][:, :2].tolist() == [[2, language(source_lang)]] * 2


def test_a_translator_of_many_targets_reads_the_language_before_the_text(part, monkeypatch):
    model, tokenizer = model_loader(AutoModelForSeq2SeqLM, part("marian_en_he"))()
    tokenizer.encoder[">>heb<<"] = 7
    generate, seen = model.generate, []
    monkeypatch.setattr(model, "generate", lambda **inputs: seen.append(inputs["input_ids"]) or generate(**inputs))
    BackTranslator(model, tokenizer, "heb", "eng")(["Dana lives", "Hello"])
    BackTranslator(model, tokenizer)(["Dana lives", "Hello"])
    assert seen[0][:, 0].tolist() == [7, 7]
    assert torch.equal(seen[0][:, 1:], seen[1])


def test_a_text_that_is_cut_keeps_the_language_it_is_translated_into(part, monkeypatch):
    model, tokenizer = model_loader(AutoModelForSeq2SeqLM, part("marian_en_he"))()
    tokenizer.encoder[">>heb<<"] = 7
    generate, seen = model.generate, {}
    monkeypatch.setattr(model, "generate", lambda **inputs: seen.update(inputs) or generate(**inputs))
    texts, positions = ["Hello world " * 60 + "Dana lives", ">>fra<< Hello"], model.config.max_position_embeddings
    BackTranslator(model, tokenizer, "heb", "eng")(texts)
    long, short = (tokenizer(f" {text}")["input_ids"] for text in texts)
    assert seen["input_ids"][0].tolist() == [7, *long[1 - positions :]]
    assert seen["input_ids"][1][seen["attention_mask"][1].bool()].tolist() == [7, *short]
    assert seen["attention_mask"].sum(dim=1).tolist() == [positions, len(short) + 1]


def test_special_tokens_in_a_text_are_translated_back_as_text(naive, monkeypatch):
    generate, seen = naive.back.model.generate, []
    monkeypatch.setattr(
        naive.back.model, "generate", lambda **inputs: seen.append(inputs["input_ids"]) or generate(**inputs)
    )
    naive.back(["Dana </s> lives"])
    [[row]] = seen
    assert row.tolist().count(naive.back.tokenizer.eos_token_id) == 1
    assert row[-1] == naive.back.tokenizer.eos_token_id
