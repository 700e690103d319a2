"""Direct: whole words of a causal language model, against brute force; padding, bytes within letters, sampling."""

import math

import parts
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.direct import Direct
from tall_hf.evaluation.approaches.language_model import LanguageModel, encode, encode_words
from tall_hf.evaluation.build import model_loader
from tall_hf.modeling import words_tall


TEXTS = ["Dana lives", "The girl reads a book about a big", "Hello", "דנה גרה בחיפה", "You are very"]
WORDS = ["in", "sea", "world", "היום", "tired"]


@pytest.fixture
def load(part):
    return lambda family: model_loader(AutoModelForCausalLM, part(family))


def followed_by(model, ids):
    """Log-probabilities behind unpadded token ids, without a cache."""
    with torch.no_grad():
        return model.llm(input_ids=torch.tensor([ids])).logits[0, -1].float()


def spelled(model, text, tokens):
    """Logarithm of the probability of one word by one spelling, a forward a token."""
    ids = model.tokenizer(text)["input_ids"]
    score = 0.0
    for i, token in enumerate(tokens):
        logits = followed_by(model, ids + tokens[:i])
        if i == 0:
            logits = logits.masked_fill(~model.starts, -math.inf)
        score += logits.log_softmax(-1)[token].item()
    return score + followed_by(model, ids + tokens).log_softmax(-1)[~model.continuations].logsumexp(-1).item()


def test_probability_of_a_word_is_that_of_its_tokens_and_its_end(load, llm):
    model = LanguageModel(*load(llm)())
    found = model.log_probabilities(TEXTS, WORDS)
    dot, comma = (model.tokenizer.convert_tokens_to_ids(mark) for mark in ".,")
    assert model.closing == [dot, comma]
    for got, text, word in zip(found, TEXTS, WORDS, strict=True):
        tokens = model.tokenizer(f"{text} {word}")["input_ids"][len(model.tokenizer(text)["input_ids"]) :]
        endings = [spelled(model, text, tokens + closing) for closing in ([], [dot], [comma])]
        assert got == pytest.approx(torch.tensor(endings).logsumexp(0).item(), abs=1e-4)
        assert got > endings[0]


def test_answers_do_not_depend_on_the_batch(load, llm):
    approach = Direct(load(llm))
    questions = [Question(text, word) for text, word in zip(TEXTS, WORDS, strict=True)]
    together = approach.answer(questions, "clean", top_k=4)
    assert len({answer.words for answer in together}) > 1
    for question, answer in zip(questions, together, strict=True):
        [alone] = approach.answer([question], "clean", top_k=4)
        assert answer.words == alone.words and len(set(alone.words)) == 4
        assert answer.log_probability == pytest.approx(alone.log_probability, abs=1e-4)


@pytest.mark.parametrize("num_continuations", [1, 3])
def test_next_words_equal_brute_force(load, monkeypatch, num_continuations):
    monkeypatch.setattr(words_tall, "_NEGLIGIBLE", 0.0)
    monkeypatch.setattr("tall_hf.evaluation.approaches.language_model.MAX_WORD_TOKENS", 2)
    model = LanguageModel(*load("qwen2")(), num_beams=64)
    letters = [model.tokenizer.convert_tokens_to_ids(letter) for letter in ("a", "b", "c")[:num_continuations]]
    for mask, kept in ((model.starts, model.starts.nonzero().flatten()[:3].tolist()), (model.continuations, letters)):
        mask.zero_()
        mask[kept] = True
    first = model.starts.nonzero().flatten().tolist()
    tokens = [[a] for a in first] + [[a, b] for a in first for b in letters]
    for text, words in zip(TEXTS, model.next_words(TEXTS, top_k=1000), strict=True):
        expected = {}
        for row in tokens:
            if word := model.tokenizer.decode(row).strip():
                expected[word] = expected.get(word, 0.0) + math.exp(spelled(model, text, row))
        assert dict(words) == pytest.approx(expected, rel=1e-3)


def test_a_list_of_next_words_and_the_probability_of_a_word_agree(load):
    model = LanguageModel(*load("qwen2")(), num_beams=300)
    [words] = model.next_words(["Dana lives"], top_k=400)
    for word, probability in words[:3]:
        [alone] = model.log_probabilities(["Dana lives"], [word])
        # The list adds up spellings; the probability of a word is of the tokenizer's own.
        assert math.exp(alone) <= probability * 1.01


def test_a_line_break_ends_a_word(load):
    model = LanguageModel(*load("gpt2")())
    newline, plain_space = (model.tokenizer.get_vocab()[piece] for piece in ("Ċ", "Ġ"))
    assert model.starts[plain_space]
    assert not model.starts[newline] and not model.continuations[newline]


def test_hebrew_is_written_byte_by_byte_and_never_broken(load):
    llm, tokenizer = load("qwen2")()
    sentence = "דנה גרה בבית ירוק"
    ids = torch.tensor([[*tokenizer(sentence)["input_ids"], tokenizer.eos_token_id]])
    word = tokenizer(" ירוק")["input_ids"]
    assert len(word) > len(" ירוק")  # more tokens than letters
    optimizer = torch.optim.Adam(llm.parameters(), lr=1e-2)
    llm.train()
    for _ in range(40):
        optimizer.zero_grad()
        llm(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    approach = Direct(lambda: (llm, tokenizer))
    [answer] = approach.answer([Question("דנה גרה בבית", "ירוק")], "clean")
    assert answer.words[0] == "ירוק"
    assert not any("\ufffd" in one for one in answer.words)
    assert answer.log_probability > math.log(0.5)
    [sampled] = approach.answer([Question("דנה גרה", "בבית")], "paper")
    assert sampled.words == ("בבית",)


def test_the_paper_samples_one_word_without_dots(load, monkeypatch):
    approach = Direct(load("qwen2"))
    monkeypatch.setattr(approach.model.tokenizer, "batch_decode", lambda *_, **__: [" big. sea", "", "., x"])
    answers = approach.answer([Question(text, "x") for text in TEXTS[:3]], "paper")
    assert [answer.words for answer in answers] == [("big",), (), ()]
    assert all(answer.log_probability is None for answer in answers)


def test_sampling_follows_torchs_random_state(load):
    approach = Direct(load("bloom"))
    questions = [Question(text, word) for text, word in zip(TEXTS, WORDS, strict=True)]
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(approach.answer(questions, "paper"))
    assert answers[0] == answers[1] != answers[2]


def test_the_paper_samples_alike_whatever_the_models_own_settings_are(load):
    llm, tokenizer = load("bloom")()
    model = LanguageModel(llm, tokenizer)
    sampled = []
    for own in ({}, {"top_k": 1}, {"top_p": 0.01}, {"repetition_penalty": 5.0}):
        llm.generation_config.update(top_k=None, top_p=None, repetition_penalty=None)
        llm.generation_config.update(**own)
        torch.manual_seed(0)
        sampled.append(model.sample_words(TEXTS * 2))
    assert sampled[1:] == sampled[:1] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes(part, dtype):
    approach = Direct(model_loader(AutoModelForCausalLM, part("qwen2"), dtype=dtype))
    [answer] = approach.answer([Question("Dana lives", "in")], "clean", top_k=3)
    assert len(answer.words) == 3 and math.isfinite(answer.log_probability)


def test_long_texts_keep_their_end(load):
    model = LanguageModel(*load("gpt2")())  # 80 positions
    [words] = model.next_words(["big " * 300 + "sea"], top_k=2)
    assert len(words) == 2


def test_special_tokens_in_a_text_are_text(load, llm):
    """In what is asked and, by `encode_words`, in what LoRA and the soft prompt learn."""
    tokenizer = load(llm)()[1]
    # Qwen2's unknown token is its end of text.
    tokens = sorted({tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token} - {None})
    special = set(tokenizer.convert_tokens_to_ids(tokens))

    def specials(row):
        return [index for index in row if index in special]

    texts = [f"Dana {token} in" for token in tokens]
    plain = specials(encode(tokenizer, ["Dana in"])[0])
    assert len(encode(tokenizer, ["Dana in"])[0]) > len(plain)
    prefixes, wholes = encode_words(tokenizer, texts, tokens)
    for row in (*encode(tokenizer, texts), *prefixes, *wholes):
        assert specials(row) == plain


def test_settings_stand_for_weights_and_tokenizer(part):
    settings = [Direct(model_loader(AutoModelForCausalLM, part("qwen2", seed))).settings() for seed in (0, 0, 1)]
    assert settings[0] == settings[1] != settings[2]
    other = AutoTokenizer.from_pretrained(part("qwen2"))
    other.add_tokens(["hello"])
    model = AutoModelForCausalLM.from_pretrained(part("qwen2"))
    assert Direct(lambda: (model, other)).settings() != settings[0]


def test_close_lets_go_and_the_next_question_loads_again(part):
    loads = []

    def load():
        loads.append(1)
        return model_loader(AutoModelForCausalLM, part("qwen2"))()

    approach = Direct(load)
    assert not loads
    approach.settings()
    approach.answer([Question("Dana lives", "in")], "clean")
    assert len(loads) == 1
    approach.close()
    approach.answer([Question(parts.ENGLISH[0], "in")], "clean")
    assert len(loads) == 2
