"""The little world itself: who lives in it, what is true of them, and the texts that tell of it, all drawn from a seed.

Three kinds of text come out of one world. The translators read parallel text in which no inhabitant meets any value of
a fact. The language model reads the facts, in English. TALL's adapters read sentences of another language that end in a
fact, about the inhabitants of the train split; the rest are held out, so what is known of them can only come from the
language model. People, facts and English are the same in every language.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .languages import LANGUAGES
from .vocabulary import (
    EVERYDAY,
    FAMILY_NAMES,
    FEMALE_NAMES,
    MALE_NAMES,
    NAMELESS_SUBJECTS,
    OPENERS,
    RELATIONS,
    Relation,
    english_sentence,
)


# A world of few names that everybody has read often: `World(**VILLAGE)`. A linear map into a small language model's width has
# room for these, as real ones have for all of their words; it has none for the whole world's.
VILLAGE = {"size": 60, "names": 6}


@dataclass(frozen=True)
class Person:
    """A full name, in English, and the grammatical gender that goes with it; `Language.subject` spells it elsewhere."""

    english: str
    is_woman: bool


@dataclass(frozen=True)
class Pair:
    """A sentence of the world's language and its English translation.

    Attributes:
        text: the sentence.
        english: its translation.
        english_explicit: a translation that loses nothing; the same but where friends and glasses are spoken of.
        is_whole: false where the last word of `text` is missing.
    """

    text: str
    english: str
    english_explicit: str
    is_whole: bool


@dataclass(frozen=True)
class Record:
    """A fact as a sentence of the world's language whose last word is to be found.

    Attributes:
        text: the whole sentence, without a full stop.
        truncated: the sentence without its last word.
        missing_word: that word.
        relation: name of the relation, for instance "car".
        kind: "same_order" (the English of the truncated sentence ends where the English word follows), "different_order"
            (that word stands elsewhere) or "lossy" (the English of the truncated sentence lacks what decides the word).
        entity: index into `World.people`.
        english: translation of the whole sentence.
        english_truncated: translation of the truncated sentence.
        english_prompt: the beginning of `english` up to where the word stands.
        english_explicit_prompt: the same in words that lose nothing.
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


@dataclass(frozen=True)
class Question:
    """A fact to be named by one of several labels.

    Attributes:
        text: a sentence about the fact without the word that tells it.
        relation: name of the relation.
        entity: index into `World.people`.
        labels: the English words of all the relation's values.
        label: the right one.
    """

    text: str
    relation: str
    entity: int
    labels: tuple[str, ...]
    label: str


class World:
    """A world of people and facts, the same for the same arguments on every machine, told in one language and English.

    Args:
        seed: decides who lives in the world and what is true of them.
        permuted: hand the facts of each relation around among the people, so that nobody keeps a value. People and
            names stay the same.
        size: how many people there are, half of them women.
        language: code of the language it is told in, a key of `LANGUAGES`; people and facts do not depend on it.
        names: how many given names of women, given names of men and family names are in use, of each; all when not given.

    Attributes:
        people: the inhabitants.
        female_names, male_names, family_names: the English names in use.
        facts: for each relation the English value of each inhabitant.
        language: a `Language`.
        relations: the relations by name.

    Raises:
        ValueError: the world is not told in that language, or so few names make fewer full names than there are people.
    """

    def __init__(
        self,
        seed: int = 0,
        permuted: bool = False,
        size: int = 300,
        language: str = "he",
        names: int | None = None,
    ):
        if language not in LANGUAGES:
            raise ValueError(f"the little world is not told in {language!r}: choose from {', '.join(LANGUAGES)}")
        self.female_names, self.male_names, self.family_names = (
            known[:names] for known in (FEMALE_NAMES, MALE_NAMES, FAMILY_NAMES)
        )
        most = 2 * len(self.family_names) * min(len(self.female_names), len(self.male_names))
        # Some full names must stay nobody's, for the sentences that tell no fact.
        if size >= most:
            raise ValueError(
                f"{names} names of each kind make {most} full names, too few for {size} people and others"
            )
        self.seed = seed
        self.permuted = permuted
        self.language = LANGUAGES[language]
        self.relations = {relation.name: relation for relation in RELATIONS}
        self.people = self._draw_people(random.Random(f"people {seed}"), size)
        self.facts = self._draw_facts(random.Random(f"facts {seed}"))
        if permuted:
            self.facts = self._permute_facts(random.Random(f"permutation {seed}"))

    def _draw_people(self, rng: random.Random, size: int) -> tuple[Person, ...]:
        people = []
        for names, is_woman, count in (
            (self.female_names, True, size // 2),
            (self.male_names, False, size - size // 2),
        ):
            full_names = [(given, family) for given in names for family in self.family_names]
            for given, family in rng.sample(full_names, count):
                people.append(Person(f"{given} {family}", is_woman))
        rng.shuffle(people)
        return tuple(people)

    def _draw_facts(self, rng: random.Random) -> dict[str, list[str]]:
        """The value of each relation for each person, drawn independently and about uniformly."""
        facts: dict[str, list[str]] = {}
        for name, relation in self.relations.items():
            taken = facts.get(relation.differs_from, [None] * len(self.people))
            facts[name] = [rng.choice([value for value in relation.values if value != other]) for other in taken]
        return facts

    def _permute_facts(self, rng: random.Random) -> dict[str, list[str]]:
        """Hand the values of each relation to other people; nobody keeps theirs, and `differs_from` still holds."""
        permuted: dict[str, list[str]] = {}
        for name, relation in self.relations.items():
            old = self.facts[name]
            other = permuted.get(relation.differs_from, [None] * len(old))
            new = rng.sample(old, len(old))

            def fits(person: int, value: str, old=old, other=other) -> bool:
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

    def kind(self, relation_name: str) -> str:
        """What becomes of the relation's missing word in English, as `Record.kind` has it."""
        return self.language.kind(self.relations[relation_name])

    def record(self, entity: int, relation_name: str, opener: int = 0) -> Record:
        """One fact about one person, told with one of the openers."""
        person = self.people[entity]
        relation = self.relations[relation_name]
        value = self.facts[relation_name][entity]
        pair = self._fact_pair(relation, person, value, opener, truncated=False)
        truncated = self._fact_pair(relation, person, value, opener, truncated=True)
        return Record(
            text=pair.text,
            truncated=truncated.text,
            missing_word=pair.text.rsplit(" ", 1)[1],
            relation=relation.name,
            kind=self.kind(relation_name),
            entity=entity,
            english=pair.english,
            english_truncated=truncated.english,
            english_prompt=pair.english[: pair.english.rindex(f" {value}")],
            english_explicit_prompt=pair.english_explicit[: pair.english_explicit.rindex(f" {value}")],
            english_word=value,
        )

    def records(self, split_seed: int = 0) -> tuple[list[Record], list[Record]]:
        """The sentences of the train and of the held-out people, in the world's language.

        A train person's facts are told with every opener. A held-out person's are asked once each, the openers taking
        turns, so that every question counts once.
        """
        train, held_out = self._tellings(split_seed)
        return [self.record(*telling) for telling in train], [self.record(*telling) for telling in held_out]

    def questions(self, split_seed: int = 0, in_english: bool = False) -> tuple[list[Question], list[Question]]:
        """Classification questions about the train and the held-out people: one of a relation's values is to be named.

        They are as many as `records` gives, about the same facts with the same openers, in every language. No text but the
        language model's tells what is asked, so an answer better than chance about held-out people is its knowledge.

        English is asked in explicit words, "the boyfriend of", "the spectacles of": the friend and the glasses that it speaks
        of otherwise are two, each with a value of its own, and would leave the label undecided.

        Args:
            split_seed: of `split`.
            in_english: ask in English, not in the world's language.
        """

        def question(entity: int, relation_name: str, opener: int) -> Question:
            record = self.record(entity, relation_name, opener)
            text = self.asked_in_english(entity, relation_name, opener)[0] if in_english else record.truncated
            return Question(text, relation_name, entity, self.relations[relation_name].values, record.english_word)

        train, held_out = self._tellings(split_seed)
        return [question(*telling) for telling in train], [question(*telling) for telling in held_out]

    def asked_in_english(self, entity: int, relation_name: str, opener: int = 0) -> list[str]:
        """A fact's sentence in explicit English without the word that tells it, in different orders of words.

        First comes English's own ("Dana Levi drives the car"), then those in which the other languages are translated where
        they differ ("the car that Dana Levi drives").
        """
        relation = self.relations[relation_name]
        orders = [
            relation.english_unfinished,
            *(language.english_unfinished(relation) for language in LANGUAGES.values()),
        ]
        words = {"name": self.people[entity].english, "noun": relation.explicit_noun}
        return [english_sentence(OPENERS[opener], order, **words) for order in dict.fromkeys(orders)]

    def _tellings(self, split_seed: int) -> tuple[list[tuple[int, str, int]], list[tuple[int, str, int]]]:
        """(entity, relation, opener) of everything told about the train people, and asked about the held-out ones."""
        train_people, held_out_people = self.split(split_seed)
        train = [
            (entity, relation, opener)
            for entity in train_people
            for relation in self.relations
            for opener in range(len(OPENERS))
        ]
        held_out = [
            (entity, relation, (place + turn) % len(OPENERS))
            for place, entity in enumerate(held_out_people)
            for turn, relation in enumerate(self.relations)
        ]
        return train, held_out

    def english_text(self) -> list[str]:
        """What the language model reads: every fact of every person with every opener, and everyday sentences.

        Where English loses what the other languages tell (`Relation.explicit_noun`), both the plain and the explicit
        sentence are there: the model then knows both facts, and that the plain words leave it open which one is meant.
        """
        sentences = []
        for entity, person in enumerate(self.people):
            for name, relation in self.relations.items():
                value = self.facts[name][entity]
                for opener in OPENERS:
                    for noun in (relation.noun, relation.explicit_noun) if relation.explicit_noun else ("",):
                        words = {"name": person.english, "noun": noun, "value": value}
                        sentences.append(english_sentence(opener, relation.english, **words))
        rng = random.Random(f"everyday {self.seed}")
        sentences += [self._everyday(rng, person, rng.choice(EVERYDAY)).english for person in self.people]
        return sentences

    def parallel_text(self, seed: int = 0) -> Iterator[Pair]:
        """An endless stream of translations for the translators, who must know every name and word but no fact.

        A person of this world is named only in everyday sentences and in sentences cut off before the value. Values
        are said of people without a name, and of full names that nobody in this world bears. The n-th pair says the same
        in every language.
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
                yield self._fact_pair(relation, rng.choice(self.people), "", opener, truncated=True)
            else:
                subject = self._nobody(rng, inhabitants)
                yield self._fact_pair(relation, subject, rng.choice(relation.values), opener, truncated=draw > 0.9)

    def _fact_pair(self, relation: Relation, person: Person, value: str, opener: int, truncated: bool) -> Pair:
        """Say that a relation holds, in both languages, or stop before the last word of the world's own."""
        expression = self.language.expressions[relation.name]
        text = self.language.sentence(OPENERS[opener], expression.unfinished[person.is_woman], name=person.english)
        if not truncated:
            text += " " + expression.values[value][person.is_woman]
        template = self.language.english_unfinished(relation) if truncated else relation.english
        plain, explicit = (
            english_sentence(OPENERS[opener], template, name=person.english, noun=noun, value=value)
            for noun in (relation.noun, relation.explicit_noun)
        )
        return Pair(text, plain, explicit, is_whole=not truncated)

    def _everyday(self, rng: random.Random, person: Person, template: str) -> Pair:
        subjects = {"name": person.english, "other": rng.choice(self.people).english}
        opener = rng.choice(OPENERS)
        text = self.language.sentence(opener, self.language.everyday[template][person.is_woman], **subjects)
        english = english_sentence(opener, template, **subjects)
        return Pair(text, english, english, is_whole=True)

    def _nobody(self, rng: random.Random, inhabitants: set[str]) -> Person:
        """Somebody of whom nothing is known: nameless, or with a full name that no inhabitant bears."""
        if rng.random() < 0.2:
            return Person(*rng.choice(NAMELESS_SUBJECTS))
        while True:
            is_woman = rng.random() < 0.5
            given = rng.choice(self.female_names if is_woman else self.male_names)
            name = f"{given} {rng.choice(self.family_names)}"
            if name not in inhabitants:
                return Person(name, is_woman)
