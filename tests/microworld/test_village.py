"""The village: a world of few names, and how a language model becomes tolerant of what is only nearly right."""

import itertools
import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput

from tall_hf.microworld import LANGUAGES, MULTILINGUAL, VILLAGE, World
from tall_hf.microworld.architectures import qwen2_tokenizer
from tall_hf.microworld.build import build
from tall_hf.microworld.build_settings import VILLAGE_SETTINGS
from tall_hf.microworld.build_translators import multilingual_text
from tall_hf.microworld.training import ANSWER, disturbed, question_batches
from tall_hf.microworld.vocabulary import FAMILY_NAMES, FEMALE_NAMES, MALE_NAMES


@pytest.fixture(scope="module")
def village():
    return World(**VILLAGE)


def test_a_village_has_few_names_in_all_that_is_told_of_it(village):
    few = VILLAGE["names"]
    used = {*FEMALE_NAMES[:few], *MALE_NAMES[:few], *FAMILY_NAMES[:few]}
    others = {*FEMALE_NAMES, *MALE_NAMES, *FAMILY_NAMES} - used
    assert {name for person in village.people for name in person.english.split()} == used
    pairs = [row["en"][0] for row in itertools.islice(multilingual_text(["he", "en"], 0, 0, **VILLAGE), 2000)]
    read = {word for text in pairs + village.english_text() for word in re.findall(r"\w+", text)}
    assert used <= read and not others & read
    # Somebody stays nobody: facts are told in the parallel text, of no inhabitant.
    with pytest.raises(ValueError, match="2 names of each kind make 8 full names"):
        World(size=8, names=2)
    assert len(World(size=7, names=2).people) == 7


def test_a_question_is_asked_in_the_orders_of_words_of_every_language(village):
    person = village.people[5].english
    assert village.asked_in_english(5, "car", 1) == [
        f"They say that {person} drives the car",
        f"They say that the car that {person} drives",
    ]
    for code in LANGUAGES:
        world = World(language=code, **VILLAGE)
        for relation in ("city", "food", "house"):
            assert world.record(5, relation, 2).english_truncated in village.asked_in_english(5, relation, 2)
    assert all("spectacles" in text for text in village.asked_in_english(5, "spectacles"))


def test_of_questions_the_answer_alone_is_learned_and_the_words_stand_in_any_order():
    statements = ["Dana lives in Haifa", "Ruth drives a red car"]
    question, answer = "who owns this one old boat", " Noa"
    # Each word is one token, at the beginning of a text and inside it: single letters are those that were put in.
    words_alone = [space + word for word in question.split() for space in ("", " ")]
    tokenizer = qwen2_tokenizer([*statements, *words_alone, ANSWER + answer] * 5, vocab_size=600)
    batches = question_batches(tokenizer, statements, [(question, answer)] * 3, size=4, seed=0)
    orders, letters = set(), 0
    for batch in itertools.islice(batches, 60):
        ids, mask, labels = (batch[name] for name in ("input_ids", "attention_mask", "labels"))
        told = tokenizer.decode(ids[0][mask[0] == 1])
        assert told.removesuffix(tokenizer.eos_token) in statements
        assert torch.equal(labels[0][mask[0] == 1], ids[0][mask[0] == 1])
        for row, row_mask, row_labels in zip(ids[1:], mask[1:], labels[1:], strict=True):
            assert tokenizer.decode(row_labels[row_labels != -100]) == answer + tokenizer.eos_token
            read = tokenizer.convert_ids_to_tokens(row[row_mask == 1][:-2].tolist())
            words = tokenizer.convert_tokens_to_string([token for token in read if len(token) > 1]).split()
            letters += sum(len(token) == 1 for token in read)
            assert sorted(words) == sorted([*question.split(), ANSWER.strip()]) and words[-1] == ANSWER.strip()
            orders.add(tuple(words[:-1]))
    assert tuple(question.split()) in orders and len(orders) > 20
    assert letters > 60


def test_noise_is_on_what_is_read_in_training_alone():
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(5, 64)
    ids = torch.arange(5).repeat(40, 20)
    clean = embedding(ids)
    with disturbed(embedding, 2.0):
        strengths = (embedding(ids) - clean).flatten(1).std(dim=1) / clean.std()
        assert torch.equal(embedding.eval()(ids), clean)
    # Of every strength up to the greatest, another one in each row.
    assert 0 < strengths.min() < 0.3 and 1.7 < strengths.max() < 2.1
    assert torch.equal(embedding.train()(ids), clean)


def test_noise_is_on_the_last_state_of_an_encoder():
    class Encoder(torch.nn.Module):
        def forward(self, states):
            return BaseModelOutput(last_hidden_state=states, hidden_states=(states,))

    states = torch.randn(3, 4, 8)
    with disturbed(encoder := Encoder(), 1.0):
        output = encoder(states)
        assert not torch.equal(output.last_hidden_state, states) and torch.equal(output.hidden_states[0], states)
    assert torch.equal(encoder(states).last_hidden_state, states)


def test_a_village_is_built_for_several_languages_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="name its languages in `multilingual`"):
        build(tmp_path / "village", village=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_writes_an_encoder_and_a_language_model_of_the_village(tmp_path):
    tiny = replace(VILLAGE_SETTINGS, multilingual_steps=2, llm_steps=2, noisy_llm_steps=2, test_sentences=10)
    build(tmp_path / "village", settings=tiny, multilingual=["he", "tr", "en"], village=True, jobs=1)
    assert {path.name for path in (tmp_path / "village").iterdir()} == {MULTILINGUAL, "llm", "README.md"}
    readme = (tmp_path / "village" / "README.md").read_text(encoding="utf-8")
    assert "--multilingual he tr en --village --seed 0" in readme and "asked in any way" in readme
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "village" / "llm")
    # What is true of anybody has been read, and is a token of its own behind the colon.
    values = {value for known in World(**VILLAGE).facts.values() for value in known}
    assert all(len(tokenizer(f" {value}")["input_ids"]) == 1 for value in values)
