"""The little world: drawn from the seed alone, grammatical, and fair - no text that trains Hebrew tells a held-out fact."""

import itertools
import random
import re
from collections import Counter

import pytest

from tall_hf.microworld import World, component_path
from tall_hf.microworld.vocabulary import (
    EVERYDAY,
    FAMILY_NAMES,
    FEMALE_NAMES,
    MALE_NAMES,
    NAMELESS_SUBJECTS,
    OPENERS,
    RELATIONS,
)


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def permuted():
    return World(permuted=True)


@pytest.fixture(scope="module")
def parallel_pairs(world):
    return list(itertools.islice(world.parallel_text(seed=0), 40_000))


def words(text):
    return set(re.findall(r"[\w']+", text))


def test_the_same_arguments_give_the_same_world_and_texts(world):
    again = World()
    assert again.people == world.people and again.facts == world.facts
    assert again.records(3) == world.records(3)
    assert again.english_text() == world.english_text()
    first = list(itertools.islice(world.parallel_text(seed=5), 200))
    assert list(itertools.islice(again.parallel_text(seed=5), 200)) == first
    assert list(itertools.islice(again.parallel_text(seed=6), 200)) != first


def test_another_seed_gives_another_world(world):
    assert World(1).people != world.people and World(1).facts != world.facts


def test_people_have_names_of_their_own(world):
    assert len({person.english for person in world.people}) == len({p.hebrew for p in world.people}) == 300
    assert sum(person.is_woman for person in world.people) == 150


def test_no_word_serves_twice():
    """Names and values: one spelling each, and none shared, in either language (pairs of relations share their values)."""
    values = {value for relation in RELATIONS for value in relation.values}
    names = [*FEMALE_NAMES, *MALE_NAMES, *FAMILY_NAMES]
    english = [name for name, _ in names] + [value.english for value in values]
    hebrew = [name for _, name in names] + [
        word for value in values for word in {value.hebrew_masculine, value.hebrew_feminine}
    ]
    for spelled in (english, hebrew):
        assert [word for word, times in Counter(spelled).items() if times > 1] == []
        assert not any(" " in word for word in spelled)


@pytest.mark.parametrize("seed", range(5))
def test_split_is_a_partition_of_the_people(world, seed):
    train, held_out = world.split(seed)
    assert sorted(train + held_out) == list(range(len(world.people)))
    assert len(held_out) == len(world.people) // 4
    assert world.split(seed + 1)[1] != held_out
    train_records, held_out_records = world.records(seed)
    assert {record.entity for record in train_records} == set(train)
    assert Counter((r.entity, r.relation) for r in held_out_records) == Counter(
        itertools.product(held_out, world.relations)
    )
    assert {record.truncated.split(world.people[record.entity].hebrew)[0] for record in held_out_records} > {""}


def test_five_seeds_ask_three_hundred_questions_a_relation(world):
    asked = Counter(record.relation for seed in range(5) for record in world.records(seed)[1])
    assert set(asked) == set(world.relations) and min(asked.values()) >= 300


def test_the_missing_word_is_the_last_one(world):
    for record in itertools.chain(*world.records()):
        assert record.text == f"{record.truncated} {record.missing_word}"
        assert " " not in record.missing_word and record.missing_word not in record.truncated.split()
        assert record.english.startswith(f"{record.english_prompt} {record.english_word}")
        if record.kind != "different_order":
            assert record.english_prompt == record.english_truncated


# --- knowledge only the language model can bring ---------------------------------------------------------------------


def test_no_inhabitant_meets_a_value_in_the_translators_text(world, parallel_pairs):
    """A sample: no sentence holds an inhabitant's full name and any value of any relation, in either language."""
    values = {value for relation in RELATIONS for value in relation.values}
    english_values = {value.english for value in values}
    hebrew_values = {word for value in values for word in (value.hebrew_masculine, value.hebrew_feminine)}
    english_names = {person.english for person in world.people}
    hebrew_names = {person.hebrew for person in world.people}
    named = 0
    for pair in parallel_pairs:
        english, hebrew = pair.english.split(), pair.hebrew.replace(" ל", " ").split()
        in_english = {f"{a} {b}" for a, b in itertools.pairwise(english)} & english_names
        in_hebrew = {f"{a} {b}" for a, b in itertools.pairwise(hebrew)} & hebrew_names
        named += bool(in_english)
        assert not (in_english and english_values & set(english)), pair
        assert not (in_hebrew and hebrew_values & set(hebrew)), pair
    assert named > 10_000  # the inhabitants are there, only not with values


def test_no_template_could_bring_an_inhabitant_and_a_value_together(world):
    """Structurally: whatever is drawn, a value is said only of somebody who is no inhabitant."""
    inhabitants = {person.english for person in world.people} | {person.hebrew for person in world.people}
    values = {word for r in RELATIONS for v in r.values for word in (v.english, v.hebrew_masculine, v.hebrew_feminine)}
    for texts in (*EVERYDAY, *OPENERS, *(subject[:2] for subject in NAMELESS_SUBJECTS)):
        assert not any(words(text) & values for text in texts)
    for relation in RELATIONS:
        for template in (*relation.hebrew, relation.english_truncated):
            assert not words(template) & values and "{value}" not in template

    rng = random.Random(0)
    for _ in range(5000):
        nobody = World._nobody(rng, {person.english for person in world.people})
        assert nobody.english not in inhabitants and nobody.hebrew not in inhabitants


@pytest.mark.parametrize("seed", range(5))
def test_the_hebrew_training_text_tells_nothing_of_held_out_people(world, seed):
    train, held_out = world.split(seed)
    text = "\n".join(record.text for record in world.records(seed)[0])
    assert not any(re.search(rf"\b{world.people[person].hebrew}\b", text) for person in held_out)


def test_the_language_model_reads_every_fact_in_explicit_words(world):
    text = set(world.english_text())
    for record in itertools.chain(*world.records()):
        assert f"{record.english_explicit_prompt} {record.english_word}" in text or record.kind == "different_order"
        assert record.english in text
    assert not any(re.search("[א-ת]", sentence) for sentence in text)


def test_permutation_hands_every_value_to_somebody_else(world, permuted):
    assert permuted.people == world.people
    for relation in world.relations:
        assert all(a != b for a, b in zip(world.facts[relation], permuted.facts[relation], strict=True))
        assert Counter(world.facts[relation]) == Counter(permuted.facts[relation])


def test_facts_that_english_confuses_differ(world, permuted):
    for facts in (world.facts, permuted.facts):
        for one, other in (("boyfriend", "girlfriend"), ("spectacles", "tumblers")):
            assert all(a != b for a, b in zip(facts[one], facts[other], strict=True))


def test_english_loses_what_decides_a_lossy_word(world):
    for one, other in (("boyfriend", "girlfriend"), ("spectacles", "tumblers")):
        for entity in range(len(world.people)):
            first, second = world.record(entity, one), world.record(entity, other)
            assert first.english_truncated == second.english_truncated
            assert first.truncated != second.truncated and first.missing_word != second.missing_word
            # The same words can be missing in both: no list of words tells the two apart.
        assert world.relations[one].values == world.relations[other].values


# --- grammar ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "is_woman", "truncated"),
    [
        ("city", True, "{} גרה בעיר"),
        ("city", False, "{} גר בעיר"),
        ("profession", True, "{} עובדת בתור"),
        ("car", True, "{} נוהגת במכונית"),
        ("house", False, "{} קנה את הבית"),
        ("girlfriend", False, "החברה של {} מגדלת"),
        ("tumblers", True, "הכוסות של {} יוצרו בעיר"),
    ],
)
def test_verbs_agree_with_their_subjects(world, relation, is_woman, truncated):
    entity = next(i for i, person in enumerate(world.people) if person.is_woman == is_woman)
    assert world.record(entity, relation).truncated == truncated.format(world.people[entity].hebrew)


def test_professions_agree_and_adjectives_carry_the_article(world):
    for entity, person in enumerate(world.people):
        profession = world.facts["profession"][entity]
        wanted = profession.hebrew_feminine if person.is_woman else profession.hebrew_masculine
        assert world.record(entity, "profession").missing_word == wanted
        # A definite noun takes a definite adjective; a car is feminine and a house is masculine.
        assert world.record(entity, "house").missing_word.startswith("ה")
        assert re.fullmatch("ה.*[הת]", world.record(entity, "car").missing_word)


def test_english_puts_the_adjective_first(world):
    record = world.record(0, "car")
    name = world.people[0].english
    assert record.english == f"{name} drives the {record.english_word} car"
    assert record.english_truncated == f"{name} drives the car" and record.english_prompt == f"{name} drives the"


def test_openers_lead_the_sentence_in_both_languages(world):
    record = world.record(0, "food", opener=3)
    assert record.text.startswith("לפי העיתון ") and record.english.startswith("According to the newspaper ")


def test_unknown_component_is_named():
    with pytest.raises(ValueError, match="no embedded component is called 'gpt'.*llm_permuted"):
        component_path("gpt")
