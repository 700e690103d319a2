"""The little world itself: who lives in it, what is true of them, and the texts that tell of it, all drawn from a seed.

Three kinds of text come out of one world. The translators read parallel text in which no inhabitant meets any value of
a fact. The language model reads the facts, in English. TALL's adapters read Hebrew sentences that end in a fact, about
the inhabitants of the train split; the rest are held out, so what is known of them can only come from the language model.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .vocabulary import (
    EVERYDAY,
    FAMILY_NAMES,
    FEMALE_NAMES,
    MALE_NAMES,
    NAMELESS_SUBJECTS,
    OPENERS,
    RELATIONS,
    Relation,
    Value,
)


@dataclass(frozen=True)
class Person:
    """A full name in both languages and the grammatical gender that goes with it."""

    hebrew: str
    english: str
    is_woman: bool


@dataclass(frozen=True)
class Pair:
    """A Hebrew sentence and its English translation. `is_whole` is false where the last Hebrew word is missing."""

    hebrew: str
    english: str
    is_whole: bool


@dataclass(frozen=True)
class Record:
    """A fact as a Hebrew sentence whose last word is to be found.

    Attributes:
        text: the whole Hebrew sentence, without a full stop.
        truncated: the sentence without its last word.
        missing_word: that word.
        relation: name of the relation, for instance "car".
        kind: "same_order" (English ends in the word too), "different_order" (in English it stands earlier) or "lossy"
            (the English of the truncated sentence lacks what decides the word).
        entity: index into `World.people`.
        english: translation of the whole sentence.
        english_truncated: translation of the truncated sentence.
        english_prompt: the beginning of `english` up to where the word stands (the same as `english_truncated` unless
            the order differs).
        english_word: the English word.
    """

    text: str
    truncated: str
    missing_word: str
    relation: str
    kind: str
    entity: int
    english: str
    english_truncated: str
    english_prompt: str
    english_explicit_prompt: str
    english_word: str


class World:
    """A world of people and facts, the same for the same arguments on every machine.

    Args:
        seed: decides who lives in the world and what is true of them.
        permuted: hand the facts of each relation around among the people, so that nobody keeps a value. People and
            names stay the same.
        size: how many people there are, half of them women.
    """

    def __init__(self, seed: int = 0, permuted: bool = False, size: int = 300):
        self.seed = seed
        self.permuted = permuted
        self.relations = {relation.name: relation for relation in RELATIONS}
        self.people = self._draw_people(random.Random(f"people {seed}"), size)
        self.facts = self._draw_facts(random.Random(f"facts {seed}"))
        if permuted:
            self.facts = self._permute_facts(random.Random(f"permutation {seed}"))

    def _draw_people(self, rng: random.Random, size: int) -> tuple[Person, ...]:
        people = []
        for names, is_woman, count in ((FEMALE_NAMES, True, size // 2), (MALE_NAMES, False, size - size // 2)):
            full_names = [(given, family) for given in names for family in FAMILY_NAMES]
            for given, family in rng.sample(full_names, count):
                people.append(Person(f"{given[1]} {family[1]}", f"{given[0]} {family[0]}", is_woman))
        rng.shuffle(people)
        return tuple(people)

    def _draw_facts(self, rng: random.Random) -> dict[str, list[Value]]:
        """Values of each relation, one for each person, drawn independently and about uniformly."""
        facts: dict[str, list[Value]] = {}
        for name, relation in self.relations.items():
            taken = facts.get(relation.differs_from, [None] * len(self.people))
            facts[name] = [rng.choice([value for value in relation.values if value != other]) for other in taken]
        return facts

    def _permute_facts(self, rng: random.Random) -> dict[str, list[Value]]:
        """Hand the values of each relation to other people; nobody keeps theirs, and `differs_from` still holds."""
        permuted: dict[str, list[Value]] = {}
        for name, relation in self.relations.items():
            old = self.facts[name]
            other = permuted.get(relation.differs_from, [None] * len(old))
            new = rng.sample(old, len(old))

            def fits(person: int, value: Value, old=old, other=other) -> bool:
                return value != old[person] and value != other[person]

            # A person with an unfit value trades with somebody whom the trade leaves fit.
            for person in range(len(new)):
                while not fits(person, new[person]):
                    partner = rng.randrange(len(new))
                    if fits(person, new[partner]) and fits(partner, new[person]):
                        new[person], new[partner] = new[partner], new[person]
            permuted[name] = new
        return permuted

    def split(self, seed: int = 0, held_out: float = 0.25) -> tuple[list[int], list[int]]:
        """Divide the people into train and held-out, as two sorted lists of indices into `people`."""
        order = list(range(len(self.people)))
        random.Random(f"split {seed}").shuffle(order)
        border = round(len(order) * held_out)
        return sorted(order[border:]), sorted(order[:border])

    def record(self, entity: int, relation_name: str, opener: int = 0) -> Record:
        """One fact about one person, told with one of the openers."""
        person = self.people[entity]
        relation = self.relations[relation_name]
        value = self.facts[relation_name][entity]
        pair = _fact_sentence(relation, person, value, opener, truncated=False)
        truncated = _fact_sentence(relation, person, value, opener, truncated=True)
        explicit = _english(relation.english_explicit or relation.english, person, value, opener)
        return Record(
            text=pair.hebrew,
            truncated=truncated.hebrew,
            missing_word=pair.hebrew.rsplit(" ", 1)[1],
            relation=relation.name,
            kind=relation.kind,
            entity=entity,
            english=pair.english,
            english_truncated=truncated.english,
            english_prompt=pair.english[: pair.english.rindex(f" {value.english}")],
            english_explicit_prompt=explicit[: explicit.rindex(f" {value.english}")],
            english_word=value.english,
        )

    def records(self, split_seed: int = 0) -> tuple[list[Record], list[Record]]:
        """The Hebrew sentences of the train and of the held-out people.

        A train person's facts are told with every opener. A held-out person's are asked once each, the openers taking
        turns, so that every question counts once.
        """
        train_people, held_out_people = self.split(split_seed)
        train = [
            self.record(entity, relation, opener)
            for entity in train_people
            for relation in self.relations
            for opener in range(len(OPENERS))
        ]
        held_out = [
            self.record(entity, relation, (place + turn) % len(OPENERS))
            for place, entity in enumerate(held_out_people)
            for turn, relation in enumerate(self.relations)
        ]
        return train, held_out

    def english_text(self) -> list[str]:
        """What the language model reads: every fact of every person with every opener, and everyday sentences.

        Where English loses what Hebrew tells (`Relation.english_explicit`), both the plain and the explicit sentence
        are there: the model then knows both facts, and that the plain words leave it open which one is meant.
        """
        sentences = []
        for entity, person in enumerate(self.people):
            for name, relation in self.relations.items():
                value = self.facts[name][entity]
                for opener in range(len(OPENERS)):
                    for template in filter(None, (relation.english, relation.english_explicit)):
                        sentences.append(_english(template, person, value, opener))
        rng = random.Random(f"everyday {self.seed}")
        sentences += [self._everyday(rng, person, rng.choice(EVERYDAY)).english for person in self.people]
        return sentences

    def parallel_text(self, seed: int = 0) -> Iterator[Pair]:
        """An endless stream of translations for the translators, who must know every name and word but no fact.

        A person of this world is named only in everyday sentences and in sentences cut off before the value. Values
        are said of people without a name, and of full names that nobody in this world bears.
        """
        rng = random.Random(f"parallel {self.seed} {seed}")
        inhabitants = {person.english for person in self.people}
        while True:
            draw = rng.random()
            relation = rng.choice(RELATIONS)
            opener = rng.randrange(len(OPENERS))
            if draw < 0.15:
                yield self._everyday(rng, rng.choice(self.people), rng.choice(EVERYDAY))
            elif draw < 0.4:
                yield _fact_sentence(relation, rng.choice(self.people), None, opener, truncated=True)
            else:
                subject = self._nobody(rng, inhabitants)
                yield _fact_sentence(relation, subject, rng.choice(relation.values), opener, truncated=draw > 0.9)

    def _everyday(self, rng: random.Random, person: Person, templates: tuple[str, str, str]) -> Pair:
        masculine, feminine, english = templates
        hebrew = feminine if person.is_woman else masculine
        other = rng.choice(self.people)
        opener_hebrew, opener_english = rng.choice(OPENERS)
        sentence = opener_english + english.format(name=person.english, other=other.english)
        return Pair(
            opener_hebrew + hebrew.format(name=person.hebrew, other=other.hebrew),
            sentence[0].upper() + sentence[1:],
            is_whole=True,
        )

    @staticmethod
    def _nobody(rng: random.Random, inhabitants: set[str]) -> Person:
        """Somebody of whom nothing is known: nameless, or with a full name that no inhabitant bears."""
        if rng.random() < 0.2:
            return Person(*rng.choice(NAMELESS_SUBJECTS))
        while True:
            is_woman = rng.random() < 0.5
            given = rng.choice(FEMALE_NAMES if is_woman else MALE_NAMES)
            family = rng.choice(FAMILY_NAMES)
            if f"{given[0]} {family[0]}" not in inhabitants:
                return Person(f"{given[1]} {family[1]}", f"{given[0]} {family[0]}", is_woman)


def _english(template: str, person: Person, value: Value | None, opener: int) -> str:
    sentence = OPENERS[opener][1] + template.format(name=person.english, value=value.english if value else "")
    return sentence[0].upper() + sentence[1:]


def _fact_sentence(relation: Relation, person: Person, value: Value | None, opener: int, truncated: bool) -> Pair:
    """Say that a relation holds, in both languages, or stop before the last Hebrew word."""
    hebrew = OPENERS[opener][0] + relation.hebrew[person.is_woman].format(name=person.hebrew)
    if truncated:
        return Pair(hebrew, _english(relation.english_truncated, person, None, opener), is_whole=False)
    word = value.hebrew_feminine if person.is_woman else value.hebrew_masculine
    return Pair(f"{hebrew} {word}", _english(relation.english, person, value, opener), is_whole=True)
