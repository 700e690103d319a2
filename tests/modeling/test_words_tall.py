"""next_words against brute force over every word of a small vocabulary."""

import math

import parts
import pytest
import torch
from parts import BRIDGES, TRANSLATORS

from tall_hf.modeling import generation_tall, words_tall


def brute_force(model, processor, text, translation, max_tokens):
    """{word: probability} over every word of up to `max_tokens` tokens, by one forward for each beginning."""
    starts, continuations = processor.word_pieces(model.final_logits_bias.shape[-1])
    inputs = processor(text=text, translations=translation, return_tensors="pt")
    words = {}

    def visit(tokens, log_probability):
        ids = torch.cat([inputs["decoder_input_ids"], torch.tensor([tokens], dtype=torch.long)], dim=1)
        mask = torch.ones_like(ids)
        logits = model(**{**inputs, "decoder_input_ids": ids, "decoder_attention_mask": mask}).logits[0, -1]
        if tokens:
            log_probs = logits.log_softmax(-1)
            word = processor.decode_target(tokens)
            word = word.rstrip(".,") or word
            if word:
                ends = log_probs[~continuations].logsumexp(-1)
                words[word] = words.get(word, 0.0) + math.exp(log_probability + ends)
            allowed = continuations
        else:
            # given that the text goes on with a new word
            log_probs = logits.masked_fill(~starts, -math.inf).log_softmax(-1)
            allowed = starts
        if len(tokens) < max_tokens:
            for token in allowed.nonzero().flatten().tolist():
                visit([*tokens, token], log_probability + log_probs[token].item())

    with torch.no_grad():
        visit([], 0.0)
    return words


def limit_words(model, processor, num_starts, num_continuations, also=()):
    """Leave so many pieces that begin or continue a word, and those of `also`, whatever the vocabulary has."""
    vocabulary = processor.tokenizer.get_vocab()
    for mask, count in zip(
        processor.word_pieces(model.final_logits_bias.shape[-1]), (num_starts, num_continuations), strict=True
    ):
        kept = mask.nonzero().flatten()[5 : 5 + count].tolist()
        kept += [vocabulary[piece] for piece in also if mask[vocabulary[piece]]]
        mask.zero_()
        mask[kept] = True


@pytest.mark.parametrize(("num_starts", "num_continuations"), [(6, 1), (3, 3)])
@pytest.mark.parametrize("max_word_tokens", [1, 2, 3])
def test_next_words_equals_brute_force(fresh, monkeypatch, num_starts, num_continuations, max_word_tokens):
    monkeypatch.setattr(words_tall, "_NEGLIGIBLE", 0.0)
    model, processor = fresh("gated")
    limit_words(model, processor, num_starts, num_continuations)
    texts, translations = parts.SENTENCES[:2], parts.TRANSLATIONS[:2]
    found = model.next_words(
        texts, processor, top_k=1000, translations=translations, num_beams=64, max_word_tokens=max_word_tokens
    )
    for words, text, translation in zip(found, texts, translations, strict=True):
        expected = brute_force(model, processor, text, translation, max_word_tokens)
        assert len(expected) >= num_starts * max_word_tokens
        assert len(words) == len(dict(words))
        assert dict(words) == pytest.approx(expected, rel=1e-4)
        assert [word for word, _ in words] == sorted(expected, key=expected.get, reverse=True)
        assert sum(expected.values()) <= 1 + 1e-5


def test_the_search_ends_when_what_is_left_is_negligible(fresh):
    model, processor = fresh("gated")
    limit_words(model, processor, 6, 1)
    text, translation = parts.SENTENCES[0], parts.TRANSLATIONS[0]
    [words] = model.next_words(text, processor, top_k=1000, translations=[translation], num_beams=64)
    words, expected = dict(words), brute_force(model, processor, text, translation, 6)
    missing = sum(probability for word, probability in expected.items() if word not in words)
    assert 0 <= missing < 1e-4
    assert words == pytest.approx({word: expected.get(word, 0.0) for word in words}, abs=1e-4)


def test_a_word_and_its_sentences_end_are_one_answer(fresh):
    model, processor = fresh("gated")
    limit_words(model, processor, 4, 0, also=(".", ","))
    starts, continuations = processor.word_pieces(model.final_logits_bias.shape[-1])
    assert continuations.sum() == 2
    with torch.no_grad():
        model.final_logits_bias[:, continuations] += 3  # so that the sum is far from the word alone
    text, translation = parts.SENTENCES[0], parts.TRANSLATIONS[0]
    settings = {"top_k": 100, "translations": [translation], "num_beams": 64}
    alone, merged = (
        dict(model.next_words(text, processor, max_word_tokens=length, **settings)[0]) for length in (1, 3)
    )
    assert alone.keys() == merged.keys()
    assert len(alone) == 4
    assert not any(word.endswith((".", ",")) for word in merged)
    assert min(merged[word] / alone[word] for word in alone) > 1.05
    assert merged == pytest.approx(brute_force(model, processor, text, translation, 3), rel=1e-4)


def test_probabilities_are_sorted_and_words_unique(composed, translator):
    model, processor = composed("gated", translator)
    found = model.next_words(parts.SENTENCES, processor, top_k=8, translations=parts.TRANSLATIONS)
    assert len(found) == len(parts.SENTENCES)
    for words in found:
        probabilities = [probability for _, probability in words]
        assert len(words) == len({word for word, _ in words}) == 8
        assert probabilities == sorted(probabilities, reverse=True)
        assert min(probabilities) > 0
        assert sum(probabilities) <= 1
        assert all(word.strip() == word != "" for word, _ in words)


@pytest.mark.parametrize(
    ("bridge", "translator"),
    [(bridge, "marian") for bridge in BRIDGES] + [("gated", translator) for translator in TRANSLATORS],
)
def test_next_words_of_a_batch_equal_each_text_alone(composed, bridge, translator):
    model, processor = composed(bridge, translator)
    together = model.next_words(parts.SENTENCES, processor, translations=parts.TRANSLATIONS)
    assert len({words[0] for words in together}) > 1
    for got, text, translation in zip(together, parts.SENTENCES, parts.TRANSLATIONS, strict=True):
        [alone] = model.next_words(text, processor, translations=[translation])
        assert [word for word, _ in got] == [word for word, _ in alone]
        assert dict(got) == pytest.approx(dict(alone), rel=1e-3)


def test_top_k_is_the_beginning_of_a_longer_list(composed, bridge):
    model, processor = composed(bridge)
    few, many = (
        model.next_words(parts.SENTENCES, processor, top_k=k, translations=parts.TRANSLATIONS, num_beams=40)
        for k in (2, 12)
    )
    for short, long in zip(few, many, strict=True):
        assert [word for word, _ in short] == [word for word, _ in long[:2]]
        assert dict(short) == pytest.approx(dict(long[:2]), rel=1e-3)


def test_next_words_translates_by_itself(composed):
    model, processor = composed("gated")
    translations = model.translate(parts.SENTENCES, processor)
    assert model.next_words(parts.SENTENCES, processor) == model.next_words(
        parts.SENTENCES, processor, translations=translations
    )


def test_next_words_of_nothing_and_of_an_empty_text(composed):
    model, processor = composed("gated")
    assert model.next_words([], processor) == []
    [words] = model.next_words("", processor, top_k=3)
    assert len(words) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 0},
        {"max_word_tokens": 0},
        {"top_k": -1},
        {"num_beams": 0},
        {"num_beams": -1},
        {"top_k": 2.5},
        {"top_k": "3"},
        {"num_beams": True},
        {"max_word_tokens": None},
    ],
)
def test_next_words_refuses_what_is_no_count(composed, wrong):
    model, processor = composed("gated")
    [(name, count)] = wrong.items()
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1, got {count!r}"):
        model.next_words("שלום", processor, **wrong)


def test_word_count_criteria():
    word_starts = torch.tensor([False, True, False, True])
    criteria = generation_tall.WordCountCriteria(word_starts, prefix_length=2, num_words=1)
    rows = torch.tensor([[1, 1, 1, 2, 0], [1, 1, 1, 2, 3], [1, 1, 2, 2, 1], [3, 3, 3, 3, 3]])
    assert criteria(rows, None).tolist() == [False, True, False, True]


def test_a_model_left_in_training_mode_answers_as_in_evaluation(fresh):
    model, processor = fresh("gated")
    expected = model.next_words(parts.SENTENCES, processor), model.complete(parts.SENTENCES, processor, max_words=2)
    model.train()
    found = model.next_words(parts.SENTENCES, processor), model.complete(parts.SENTENCES, processor, max_words=2)
    assert found == expected
    assert model.training and model.encoder.target_alignment.training and not model.encoder.llm.training


def test_improbable_beams_are_given_up_together_below_the_bound():
    starts = torch.tensor([True, True, True, False, False])
    continuations = torch.tensor([False, False, False, True, False])
    tiny = 1e-30
    first = torch.tensor([[0.99995, 4e-5, 1e-5, tiny, tiny], [0.5, 0.49985, 0.00015, tiny, tiny]]).log()
    # Behind every beginning the word ends (the last token) or goes on (the last but one).
    behind = iter([8e-5, 0.5])
    calls = []

    def step(tokens, parents):
        calls.append((tokens.tolist(), parents.tolist()))
        longer = next(behind)
        return torch.tensor([[tiny, tiny, tiny, longer, 1 - longer]] * len(tokens)).log()

    found = words_tall.search_words(first, step, starts, continuations, str, num_beams=3, max_word_tokens=3)
    # Of the first text two beams, together 5e-5, are given up; of the second none, as the least is 1.5e-4.
    assert calls[0] == ([0, 0, 1, 2], [0, 1, 1, 1])
    # 8e-5 goes on in the first text, too much beside what it has given up already; in the second text as much, and nothing before.
    # Then 4e-5 is left, and nothing is looked at a third time.
    assert calls[1:] == [([3], [0])]
    assert dict(found[0]) == pytest.approx({"[0]": 0.99995 * (1 - 8e-5), "[0, 3]": 0.99995 * 8e-5 * 0.5}, rel=1e-4)
    assert dict(found[1]) == pytest.approx({"[0]": 0.5, "[1]": 0.49985, "[2]": 0.00015}, rel=1e-3)
