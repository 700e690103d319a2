"""DecoderOnly: the translator's own logits on an empty source, over whole words; the same as a TALL that is told nothing."""

import math

import parts
import pytest
import torch
from parts import TRANSLATORS
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.decoder_only import DecoderOnly
from tall_hf.evaluation.build import model_loader
from tall_hf.microworld import World, component_path


WORDS = ["בחיפה", "האדום", "בבוקר", "מאוד", "עולם"]
QUESTIONS = [Question(text, word) for text, word in zip(parts.SENTENCES, WORDS, strict=True)]


@pytest.fixture
def approach(part):
    def build(translator="marian", **options):
        _, hr_lr, languages = TRANSLATORS[translator]
        load = model_loader(AutoModelForSeq2SeqLM, part(hr_lr, 1))
        return DecoderOnly(load, source_lang=languages.get("source_lang"), **options)

    return build


def spelled(decoder, text, word):
    """Log-probability of a word by its own spelling, a whole forward of the translator for each beginning of it."""

    def encode(text):
        return decoder.tokenizer(text_target=text, add_special_tokens=False)["input_ids"]

    def log_probs(row, allowed=None):
        ids = torch.tensor([decoder.start + encode(text) + row])
        source = torch.tensor([[decoder.tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = decoder.model(input_ids=source, decoder_input_ids=ids).logits[0, -1]
        return (logits if allowed is None else logits.masked_fill(~allowed, -math.inf)).log_softmax(-1)

    endings = []
    for closing in ([], *([token] for token in decoder.closing)):
        spelling = encode(word) + closing
        score = log_probs([], decoder.starts)[spelling[0]]
        score = score + sum(log_probs(spelling[:i])[token] for i, token in enumerate(spelling) if i)
        endings.append(score + log_probs(spelling)[~decoder.continuations].logsumexp(-1))
    return torch.stack(endings).logsumexp(0).item()


def test_probabilities_are_the_translators_own(approach, translator):
    asked = approach(translator)
    answers = asked.answer(QUESTIONS, "clean")
    assert len(asked.decoder.start) == (1 if translator == "marian" else 2)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        expected = spelled(asked.decoder, question.truncated, question.missing_word)
        assert answer.log_probability == pytest.approx(expected, abs=1e-3)


def test_words_are_those_of_a_tall_that_is_told_nothing(approach, composed, translator):
    model, processor = composed("gated", translator)
    asked = approach(translator)
    # The TALL's decoder with the translator's own encoder and the empty sentence: positions by row, and padding.
    end = torch.tensor([[processor.tokenizer.eos_token_id]])
    source = asked.decoder.model.get_encoder()(input_ids=end).last_hidden_state
    encoded = BaseModelOutput(source.expand(len(QUESTIONS), -1, -1))
    found = model.next_words(
        parts.SENTENCES, processor, top_k=4, translations=[""] * len(QUESTIONS), encoder_outputs=encoded
    )
    answers = asked.answer(QUESTIONS, "clean", top_k=4)
    assert [answer.words for answer in answers] == [tuple(word for word, _ in words) for words in found]
    assert len({answer.words for answer in answers}) > 1


def test_answers_do_not_depend_on_the_batch(approach):
    asked = approach()
    for question, answer in zip(QUESTIONS, asked.answer(QUESTIONS, "clean"), strict=True):
        [alone] = asked.answer([question], "clean")
        assert alone.words == answer.words
        assert alone.log_probability == pytest.approx(answer.log_probability, abs=1e-4)


def test_what_cannot_be_written_or_has_no_room(approach):
    long = " ".join(parts.HEBREW * 3)
    questions = [Question("דנה", "漢字"), Question("דנה", "א" * 200), Question(long, "בחיפה"), Question("", "דנה")]
    answers = approach().answer(questions, "clean", top_k=3)
    assert [answer.log_probability for answer in answers[:2]] == [-math.inf] * 2
    assert min(answer.log_probability for answer in answers[2:]) > -math.inf
    assert [len(answer.words) for answer in answers] == [3] * 4


def test_special_tokens_in_a_text_are_text(approach, composed, translator):
    asked = approach(translator)
    _, processor = composed("gated", translator)
    texts = [f"דנה {token} גרה" for token in processor.tokenizer.all_special_tokens]
    texts += [">>fra<< דנה גרה", "דנה heb_Hebr גרה"]
    assert asked.decoder._encode(texts) == processor.encode_target(texts)


def test_settings(approach, part):
    asked = approach()
    settings = asked.settings()
    assert settings == approach().settings() != approach("nllb").settings()
    assert (asked.name, asked.protocols, asked.reads_translations) == ("decoder_only", ("clean",), False)
    asked.close()
    assert asked._decoder is None and asked.settings() == settings
    assert DecoderOnly(model_loader(AutoModelForSeq2SeqLM, part("marian_en_he", 0))).settings() != settings


def test_the_little_worlds_decoder_knows_no_facts():
    asked = DecoderOnly(model_loader(AutoModelForSeq2SeqLM, component_path("hr_lr")))
    records = World().records(0)[1][:60]
    answers = asked.answer([Question(record.truncated, record.missing_word) for record in records], "clean")
    right = sum(answer.words[0] == record.missing_word for answer, record in zip(answers, records, strict=True))
    assert right < 15
    assert all(-20 < answer.log_probability < 0 for answer in answers)
