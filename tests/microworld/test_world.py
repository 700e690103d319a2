"""The little world: drawn from the seed alone, and fair in every language - no text that trains it tells a held-out fact."""

import itertools
import random
import re
from collections import Counter

import pytest

from tall_hf.data import CorpusSettings
from tall_hf.data.words import count_words, normalize, split_last_word
from tall_hf.microworld import LANGUAGES, World, component_path, components_folder
from tall_hf.microworld.vocabulary import EVERYDAY, NAMELESS_SUBJECTS, OPENERS


@pytest.fixture(scope="module", params=LANGUAGES)
def world(request):
    return World(language=request.param)


@pytest.fixture(scope="module")
def permuted(world):
    return World(permuted=True, language=world.language.code)


@pytest.fixture(scope="module")
def parallel_pairs(world):
    return list(itertools.islice(world.parallel_text(seed=0), 40_000))


def words(text):
    return set(re.findall(r"[\w']+", text))


def values_of(language):
    """Every form of every value."""
    return {word for told in language.expressions.values() for forms in told.values.values() for word in forms}


def test_the_same_arguments_give_the_same_world_and_texts(world):
    again = World(language=world.language.code)
    assert again.people == world.people and again.facts == world.facts
    assert again.records(3) == world.records(3)
    assert again.english_text() == world.english_text()
    first = list(itertools.islice(world.parallel_text(seed=5), 200))
    assert list(itertools.islice(again.parallel_text(seed=5), 200)) == first
    assert list(itertools.islice(again.parallel_text(seed=6), 200)) != first


def test_another_seed_gives_another_world(world):
    assert World(1).people != world.people and World(1).facts != world.facts


@pytest.mark.parametrize("is_permuted", [False, True])
def test_one_language_model_serves_every_language(is_permuted):
    """People, facts and all that is said in English are the same; the n-th pair says the same too."""
    hebrew, *others = (World(2, is_permuted, language=code) for code in LANGUAGES)
    for other in others:
        assert other.people == hebrew.people and other.facts == hebrew.facts
        assert other.english_text() == hebrew.english_text()
        for ours, theirs in zip(hebrew.records(1), other.records(1), strict=True):
            facts = [
                [(r.entity, r.relation, r.english, r.english_word) for r in records] for records in (ours, theirs)
            ]
            assert facts[0] == facts[1]
        for ours, theirs in itertools.islice(zip(hebrew.parallel_text(3), other.parallel_text(3), strict=True), 500):
            assert ours.is_whole == theirs.is_whole and (ours.english == theirs.english or not ours.is_whole)


def test_an_unknown_language_is_named():
    with pytest.raises(ValueError, match="not told in 'xx': choose from he, tr"):
        World(language="xx")
    with pytest.raises(ValueError, match="embedded components are Hebrew.*--language tr"):
        components_folder("tr")
    assert components_folder("he") == component_path("llm").parent


def test_people_have_names_of_their_own(world):
    names = {world.language.subject(person.english) for person in world.people}
    assert len({person.english for person in world.people}) == len(names) == 300
    assert sum(person.is_woman for person in world.people) == 150


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
    names = {record.entity: world.language.subject(world.people[record.entity].english) for record in held_out_records}
    assert {record.truncated.split(names[record.entity])[0] for record in held_out_records} > {""}


def test_five_seeds_ask_three_hundred_questions_a_relation(world):
    asked = Counter(record.relation for seed in range(5) for record in world.records(seed)[1])
    assert set(asked) == set(world.relations) and min(asked.values()) >= 300


def test_the_missing_word_is_the_last_one(world):
    for record in itertools.chain(*world.records()):
        assert record.text == f"{record.truncated} {record.missing_word}"
        assert " " not in record.missing_word and record.missing_word not in record.truncated.split()
        assert record.english.startswith(f"{record.english_prompt} {record.english_word}")
        # The kinds say what they mean.
        loses = record.english_explicit_prompt != record.english_prompt
        ends_there = record.english_prompt == record.english_truncated
        assert record.kind == ("lossy" if loses else "same_order" if ends_there else "different_order")


def test_there_is_every_kind_of_relation(world):
    assert {world.kind(relation) for relation in world.relations} == {"same_order", "different_order", "lossy"}


def test_the_missing_word_is_what_the_package_takes_for_the_last_word(world):
    for record in world.records()[0]:
        assert split_last_word(normalize(record.text)) == (record.truncated, record.missing_word)
        assert count_words(record.text) >= CorpusSettings.min_words


# --- knowledge only the language model can bring ---------------------------------------------------------------------


def test_no_inhabitant_meets_a_value_in_the_translators_text(world, parallel_pairs):
    """A sample: no sentence holds an inhabitant's full name and any value of any relation, in either language."""
    english_values = {value for relation in world.relations.values() for value in relation.values}
    values = values_of(world.language)
    english_names = {person.english for person in world.people}
    names = {world.language.subject(english) for english in english_names}
    named = 0
    for pair in parallel_pairs:
        english = pair.english.split()
        # A name may stand behind a Hebrew prefix, or before a Turkish suffix.
        bare = re.sub(r"'\w+", "", pair.text)
        told = [*bare.split(), *bare.replace(" ל", " ").split()]
        in_english = {f"{a} {b}" for a, b in itertools.pairwise(english)} & english_names
        is_named = {f"{a} {b}" for a, b in itertools.pairwise(told)} & names
        named += bool(is_named)
        assert bool(is_named) == bool(in_english), pair
        assert not (in_english and english_values & set(english)), pair
        assert not (is_named and values & set(pair.text.split())), pair
    assert named > 10_000  # the inhabitants are there, only not with values


def test_no_template_could_bring_an_inhabitant_and_a_value_together(world):
    """Structurally: whatever is drawn, a value is said only of somebody who is no inhabitant."""
    language = world.language
    english_values = {value for relation in world.relations.values() for value in relation.values}
    for text in (*EVERYDAY, *OPENERS, *(subject for subject, _ in NAMELESS_SUBJECTS)):
        assert not words(text) & english_values
    for text in (
        *itertools.chain(*language.everyday.values()),
        *language.openers.values(),
        *language.nameless_subjects.values(),
    ):
        assert not words(text) & values_of(language)
    for name, relation in world.relations.items():
        assert not words(language.english_unfinished(relation)) & english_values
        assert "{value}" not in language.english_unfinished(relation)
        for template in language.expressions[name].unfinished:
            assert not words(template) & values_of(language) and "{value}" not in template

    inhabitants = {person.english for person in world.people}
    names = {language.subject(english) for english in inhabitants}
    rng = random.Random(0)
    for _ in range(5000):
        nobody = world._nobody(rng, inhabitants)
        assert nobody.english not in inhabitants and language.subject(nobody.english) not in names


@pytest.mark.parametrize("seed", range(5))
def test_the_training_text_tells_nothing_of_held_out_people(world, seed):
    train, held_out = world.split(seed)
    text = "\n".join(record.text for record in world.records(seed)[0])
    names = [world.language.subject(world.people[person].english) for person in held_out]
    assert not any(re.search(rf"\b{name}\b", text) for name in names)


def test_the_language_model_reads_every_fact_in_explicit_words(world):
    text = set(world.english_text())
    for record in itertools.chain(*world.records()):
        explicit = f"{record.english_explicit_prompt} {record.english_word}"
        assert explicit in text or record.relation in ("car", "house")  # where English goes on behind the word
        assert record.english in text
    assert not any(re.search("[^A-Za-z ]", sentence) for sentence in text)


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
        assert world.language.expressions[one].values == world.language.expressions[other].values


def test_unknown_component_is_named():
    with pytest.raises(ValueError, match="no embedded component is called 'gpt'.*llm_permuted"):
        component_path("gpt")
