"""TALL: next_words' answers and probabilities in one reading; padding; and the authors' one sampled token."""

import dataclasses
import math
from collections import Counter

import parts
import pytest
import torch
from parts import BRIDGES, TRANSLATORS

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.tall import TALL, PunctuationBlock, TALLWithTranslations, punctuation_tokens
from tall_hf.modeling import words_tall


WORDS = ["בחיפה", "האדום", "בבוקר", "מאוד", "עולם"]
QUESTIONS = [
    Question(text, word, translation)
    for text, word, translation in zip(parts.SENTENCES, WORDS, parts.TRANSLATIONS, strict=True)
]


@pytest.fixture
def approach(composed):
    return lambda *args, **options: TALL(lambda: composed(*args), **options)


def by_brute_force(model, processor, question):
    """Log-probability of the missing word by its own spelling, a whole forward for each beginning of it."""
    starts, continuations = processor.word_pieces(model.final_logits_bias.shape[-1])
    inputs = processor(text=question.truncated, translations=question.translation, return_tensors="pt")
    [tokens] = processor.encode_target(question.missing_word)
    dot, comma = (processor.tokenizer.get_vocab().get(mark) for mark in ".,")
    closings = [[], *([token] for token in (dot, comma) if token is not None and continuations[token])]

    def log_probs(row, allowed=None):
        ids = torch.cat([inputs["decoder_input_ids"], torch.tensor([row], dtype=torch.long)], dim=1)
        with torch.no_grad():
            logits = model(
                **{**inputs, "decoder_input_ids": ids, "decoder_attention_mask": torch.ones_like(ids)}
            ).logits[0, -1]
        return (logits if allowed is None else logits.masked_fill(~allowed, -math.inf)).log_softmax(-1)

    endings = []
    for closing in closings:
        spelling = tokens + closing
        score = log_probs([], starts)[spelling[0]]
        score = score + sum(log_probs(spelling[:i])[token] for i, token in enumerate(spelling) if i)
        endings.append(score + log_probs(spelling)[~continuations].logsumexp(-1))
    return torch.stack(endings).logsumexp(0).item()


@pytest.mark.parametrize(
    ("bridge", "translator"),
    [(bridge, "marian") for bridge in BRIDGES] + [("gated", translator) for translator in TRANSLATORS],
)
def test_clean_answers(approach, composed, bridge, translator):
    model, processor = composed(bridge, translator)
    answers = approach(bridge, translator).answer(QUESTIONS, "clean", top_k=4)
    expected = model.next_words(parts.SENTENCES, processor, top_k=4, translations=parts.TRANSLATIONS)
    assert [answer.words for answer in answers] == [tuple(word for word, _ in words) for words in expected]
    assert [answer.translation for answer in answers] == parts.TRANSLATIONS
    lengths = {len(row) for row in processor.encode_target(WORDS)}
    assert len(lengths) > 1  # so that the longest word pads the others
    for question, answer in zip(QUESTIONS, answers, strict=True):
        assert answer.log_probability == pytest.approx(by_brute_force(model, processor, question), abs=1e-3)


def test_the_two_probabilities_agree_where_a_word_has_one_spelling(fresh, monkeypatch):
    monkeypatch.setattr(words_tall, "_NEGLIGIBLE", 0.0)
    model, processor = fresh("gated")
    # Tokens that begin a word, and a letter: few words of one and the other can be written in another way.
    starts, continuations = processor.word_pieces(model.final_logits_bias.shape[-1])
    first = starts.nonzero().flatten().tolist()
    letter = processor.tokenizer.get_vocab()["ה"]
    assert continuations[letter]
    continuations.zero_()
    continuations[letter] = True
    approach = TALL(lambda: (model, processor), num_beams=len(first))
    question = QUESTIONS[1]
    settings = {"top_k": 1000, "num_beams": len(first), "translations": [question.translation]}
    [words] = model.next_words([question.truncated], processor, max_word_tokens=2, **settings)
    spellings = Counter(processor.decode_target([token, *end]) for token in first for end in ([], [letter]))
    compared = 0
    for word, probability in words:
        [tokens] = processor.encode_target(word)
        if tokens[0] in first and tokens[1:] == [letter] and spellings[word] == 1:
            [answer] = approach.answer([Question(question.truncated, word, question.translation)], "clean")
            assert math.exp(answer.log_probability) == pytest.approx(probability, rel=1e-4)
            compared += 1
    assert compared >= 3


def test_answers_do_not_depend_on_the_batch(approach, translator):
    asked = approach("gated", translator)
    together = asked.answer(QUESTIONS, "clean")
    assert len({answer.log_probability for answer in together}) == len(QUESTIONS)
    for question, answer in zip(QUESTIONS, together, strict=True):
        [alone] = asked.answer([question], "clean")
        assert alone.words == answer.words
        assert alone.log_probability == pytest.approx(answer.log_probability, abs=1e-4)


def test_given_translations_are_read_in_place_of_the_translators(approach, composed):
    given = {question.truncated: question.translation for question in QUESTIONS}
    turned = dict(zip(given, [*parts.TRANSLATIONS[1:], parts.TRANSLATIONS[0]], strict=True))
    asked = [dataclasses.replace(question, translation=None) for question in QUESTIONS]
    made, other = (TALLWithTranslations(lambda: composed("gated"), "given", texts) for texts in (given, turned))
    assert made.answer(asked, "clean") == approach("gated").answer(QUESTIONS, "clean")
    for answer, changed in zip(made.answer(asked, "clean"), other.answer(asked, "clean"), strict=True):
        assert abs(answer.log_probability - changed.log_probability) > 1e-3
    assert made.settings() != other.settings() and not made.reads_translations
    with pytest.raises(ValueError, match="'given' is given no translation of 'דבר אחר'"):
        made.answer([Question("דבר אחר", "לגמרי")], "clean")


def test_the_encoder_runs_once_for_both(approach, composed, monkeypatch):
    model, _ = composed("gated")
    calls = []
    forward = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    approach("gated").answer(QUESTIONS, "clean")
    assert len(calls) == 1


def test_what_cannot_be_written_or_has_no_room_has_no_probability(approach, composed):
    questions = [Question("דנה גרה", word, "Dana lives") for word in ("בחיפה", "漢字", "א" * 200)]
    answers = approach("gated").answer(questions, "clean")
    assert answers[0].log_probability > -math.inf
    assert [answer.log_probability for answer in answers[1:]] == [-math.inf] * 2
    assert all(answer.words == answers[0].words for answer in answers)
    [alone] = approach("gated").answer(questions[:1], "clean")
    assert alone.log_probability == pytest.approx(answers[0].log_probability, abs=1e-4)


def test_a_long_text_leaves_room_for_its_word(approach):
    long = Question(" ".join(parts.HEBREW * 3), "בחיפה", " ".join(parts.ENGLISH))
    [answer] = approach("gated").answer([long], "clean")
    assert len(answer.words) == 5
    assert -math.inf < answer.log_probability < 0


def distribution(model, processor, question, punctuation=None):
    """What the authors' settings sample the next token from, by hand."""
    inputs = processor(text=question.truncated, translations=question.translation, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1].float()
    logits[processor.tokenizer.pad_token_id] = -math.inf  # among the translator's bad words
    if punctuation is not None:
        logits[punctuation] = -math.inf
    probabilities, order = (logits / 0.7).softmax(-1).sort(descending=True)
    probabilities[50:] = 0
    probabilities /= probabilities.sum()
    kept = probabilities.cumsum(0) - probabilities < 0.95
    result = torch.zeros_like(probabilities)
    result[order[kept]] = probabilities[kept]
    return result / result.sum()


@pytest.mark.parametrize("block", [0.0, 0.8, 1.0])
def test_paper_samples_one_token(fresh, block):
    model, processor = fresh("gated")
    punctuation = punctuation_tokens(processor.tokenizer, model.final_logits_bias.shape[-1])
    with torch.no_grad():
        model.final_logits_bias[:, punctuation] += 4  # so that blocking it shows
    question = QUESTIONS[1]
    free, blocked = (distribution(model, processor, question, mask) for mask in (None, punctuation))
    expected = (1 - block) * free + block * blocked
    prefix = processor(text=question.truncated, translations="", return_tensors="pt")["decoder_input_ids"][0].tolist()
    by_word = {}
    for token in expected.nonzero().flatten().tolist():
        [*_, word] = processor.decode_target([*prefix, token]).split()
        by_word[word] = by_word.get(word, 0.0) + expected[token].item()
    approach = TALL(lambda: (model, processor), punctuation_block=block)
    n = 3000
    answers = [word for _ in range(10) for [word] in words_of(approach.answer([question] * (n // 10), "paper"))]
    assert set(answers) <= set(by_word)
    for word, probability in by_word.items():
        spread = 4 * math.sqrt(probability * (1 - probability) / n) + 1e-9
        assert answers.count(word) / n == pytest.approx(probability, abs=spread), word


def words_of(answers):
    return [answer.words for answer in answers]


def test_paper_is_a_function_of_the_random_state(approach):
    asked = approach("gated")
    found = []
    for seed in (1, 1, 2, 3):
        torch.manual_seed(seed)
        found.append(asked.answer(QUESTIONS, "paper"))
    assert found[0] == found[1]
    assert len({tuple(words_of(answers)) for answers in found}) > 1
    assert all(answer.log_probability is None for answer in found[0])
    assert [answer.translation for answer in found[0]] == parts.TRANSLATIONS


def test_an_empty_text_may_have_no_word(fresh):
    model, processor = fresh("gated")
    with torch.no_grad():
        model.final_logits_bias[:, processor.tokenizer.eos_token_id] += 100
    approach = TALL(lambda: (model, processor))
    answers = approach.answer([Question("", "דנה", ""), Question("דנה גרה", "בחיפה", "Dana lives")], "paper")
    assert words_of(answers) == [(), ("גרה",)]  # where the sentence ends, the last word is the text's own


def test_each_row_draws_its_own_block():
    block = PunctuationBlock(torch.tensor([True, False, True]), 0.8)
    torch.manual_seed(0)
    scores = block(None, torch.ones(5000, 3))
    assert torch.equal(scores[:, 1], torch.ones(5000))
    assert torch.equal(scores[:, 0], scores[:, 2])
    assert scores[:, 0].isinf().float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert torch.equal(PunctuationBlock(block.punctuation, 0.0)(None, torch.ones(9, 3)), torch.ones(9, 3))


def test_punctuation_tokens(composed):
    _, processor = composed("gated")
    vocabulary = processor.tokenizer.get_vocab()
    found = punctuation_tokens(processor.tokenizer, len(vocabulary)).nonzero().flatten().tolist()
    names = {piece for piece, index in vocabulary.items() if index in found}
    assert {".", ","} <= names
    assert all(set(piece.removeprefix("▁")) <= set(".,") for piece in names)


def test_without_the_block_only_the_paper_is_asked(approach, composed):
    blocked, free = approach("gated"), approach("gated", name="tall_unblocked", punctuation_block=0.0)
    assert (blocked.protocols, free.protocols) == (("clean", "paper"), ("paper",))
    assert (blocked.name, free.name) == ("tall", "tall_unblocked")
    assert blocked.settings()["punctuation_block"] == 0.8
    with pytest.raises(ValueError, match="from 0 to 1, got 80"):
        approach("gated", punctuation_block=80)


def test_settings_stand_for_the_model_and_the_processor(approach, fresh):
    settings = approach("gated").settings()
    assert settings == approach("gated").settings() != approach("marian").settings()
    model, processor = fresh("gated")
    assert TALL(lambda: (model, processor)).settings() == settings
    processor.max_source_length = 9
    assert TALL(lambda: (model, processor)).settings() != settings
    model, processor = fresh("gated")
    with torch.no_grad():
        model.encoder.gate += 0.5
    assert TALL(lambda: (model, processor)).settings() != settings


def test_the_model_is_loaded_late_and_let_go(composed):
    loads = []
    approach = TALL(lambda: loads.append(1) or composed("gated"))
    assert not loads
    approach.settings()
    approach.answer(QUESTIONS, "clean")
    assert len(loads) == 1
    approach.close()
    assert approach._loaded is None
