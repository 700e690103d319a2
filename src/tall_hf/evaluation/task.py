"""The task: from texts to sentences without their last word, and the text that approaches learn from."""

import dataclasses
import hashlib
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from datasets import Dataset, IterableDataset
from rich.table import Table

from tall_hf.data.prepare import load_translations, prepared_truncation
from tall_hf.data.texts import read_grouped_texts
from tall_hf.data.words import divide_at_last_word, is_word, normalize, split_last_word, words_of
from tall_hf.fingerprints import text_digest
from tall_hf.measuring.tables import counts_table

from .approach import PROTOCOLS, Question, TrainingText, read_column


@dataclasses.dataclass
class QuestionCounts:
    """How many texts were read, why some were left out, and how many questions the others make.

    Attributes:
        read: texts read.
        empty: nothing but spaces; under "clean" also nothing but marks and stray symbols.
        overlapping: shares words in a row with the training text.
        not_sampled: not among the `max_questions` that were drawn.
        no_last_word: its last token has no letter and no digit ("clean" only).
        one_word: nothing stands before the last word.
        questions: those left.
        duplicates: questions among them that have been asked before; they are kept.
        learned: questions among them whose whole sentence stands in the training text; they are kept.
    """

    read: int = 0
    empty: int = 0
    overlapping: int = 0
    not_sampled: int = 0
    no_last_word: int = 0
    one_word: int = 0
    questions: int = 0
    duplicates: int = 0
    learned: int = 0

    def table(self, title: str = "Questions") -> Table:
        """The counts for a terminal."""
        rows = [("read", self.read)]
        rows += [(f"left out: {why}", getattr(self, name)) for name, why in _LEFT_OUT.items()]
        rows += [
            ("questions", self.questions),
            ("asked before", self.duplicates),
            ("in the training text", self.learned),
        ]
        return counts_table(title, rows, self.read)


_LEFT_OUT = {
    "empty": "empty",
    "overlapping": "words in a row shared with the training text",
    "not_sampled": "not drawn",
    "no_last_word": "punctuation alone at the end",
    "one_word": "a single word",
}


def read_questions(
    source: str | os.PathLike | Dataset | IterableDataset | Iterable[str],
    protocol: str = "clean",
    *,
    column: str | None = None,
    group_column: str | None = None,
    max_questions: int | None = None,
    strip_niqqud: bool = False,
    split: Callable[[str], list[str]] = str.split,
    training: TrainingText | None = None,
    exclude_overlap: int | None = None,
) -> tuple[list[Question], QuestionCounts]:
    """Take the last word away from each sentence of an evaluation set.

    "clean" normalises the text (`tall_hf.data.words.normalize`); the missing word is the last token without the
    punctuation around it, and a sentence whose last token is nothing but punctuation is left out: it has no last word to
    find. "paper" is the authors' reading: every '.' is removed, the last token between spaces is the missing word,
    whatever it is, and only sentences of one word are left out. Evaluation sets are taken whole: duplicates are counted
    and kept.

    Overlap, the draw of `max_questions` and the count of learned sentences look at the normalised text under either
    protocol, so both ask about the same sentences, but for those that "clean" must leave out.

    Args:
        source, column: as for `tall_hf.data.texts.read_texts`.
        protocol: "clean" or "paper".
        group_column: which column names the group of a question, such as a domain.
        max_questions: how many sentences to draw at most, by their hash: whatever the order of the file, and the same ones
            each time. "clean" may ask fewer questions than were drawn.
        strip_niqqud: remove Hebrew vowel points, if the training text is without ("paper" asks about the text as it is).
        split: divides a sentence into words, in order, each a part of the sentence, for scripts without spaces ("paper"
            divides at spaces, as the authors do).
        training: the text whose sentences are counted, and looked for by `exclude_overlap`.
        exclude_overlap: leave out sentences that share so many words in a row with a training or validation sentence;
            sentences of fewer words are left out if they are there as a whole. 7 are hardly shared by chance.

    Returns:
        The questions in the order of the source, and the counts.

    Raises:
        ValueError: no sentence is left, an unknown protocol, impossible settings; and what `read_texts` raises.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(map(repr, PROTOCOLS))}, got {protocol!r}.")
    for name, value in (("max_questions", max_questions), ("exclude_overlap", exclude_overlap)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if exclude_overlap is not None and training is None:
        raise ValueError(
            "`exclude_overlap` compares with the training text: pass `training=training_text(folder)` of what `tall "
            "prepare` wrote."
        )
    counts = QuestionCounts()
    rows = _not_empty(read_grouped_texts(source, column, group_column), counts)
    if exclude_overlap is not None:
        rows = _without_overlap(rows, training, exclude_overlap, strip_niqqud, split, counts)
    if max_questions is not None:
        rows = _drawn(rows, max_questions, counts)
    questions, seen = [], set()
    learned = _sentences(training)
    for _, text, group in rows:
        if protocol == "clean":
            truncated, word = _divide_clean(normalize(text, strip_niqqud), split, counts)
        else:
            truncated, word = _divide_as_the_authors(text, counts)
        if word:
            question = Question(truncated, word, group=group)
            counts.duplicates += question.sentence in seen
            counts.learned += _hash(_as_in_a_corpus(text, strip_niqqud, split)) in learned
            seen.add(question.sentence)
            questions.append(question)
    counts.questions = len(questions)
    if not questions:
        reasons = [f"{getattr(counts, name):,} {why}" for name, why in _LEFT_OUT.items() if getattr(counts, name)]
        raise ValueError(
            f"Of {counts.read:,} texts none is left to ask about: {', '.join(reasons) or 'there are none'}. An evaluation "
            "set has one sentence of the low-resource language a line or row; pass another file."
        )
    return questions, counts


def _sentences(training: TrainingText | None) -> set[bytes]:
    """Hashes of the sentences that approaches learn from or choose settings by."""
    splits = () if training is None else (training.train, training.validation)
    return {_hash(text) for split in splits for text in read_column(split, "sentence")}


def _as_in_a_corpus(text: str, strip_niqqud, split) -> str:
    """The sentence of a text as `tall prepare` keeps it: normalised, up to and with its last word."""
    return "".join(divide_at_last_word(normalize(text, strip_niqqud), split))


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def training_text(folder: str | os.PathLike) -> TrainingText:
    """The text in a folder that `tall prepare` made.

    Raises:
        FileNotFoundError: the folder was not prepared, or not to its end.
        ValueError: its sentences were truncated elsewhere than before their last word.
    """
    if (truncation := prepared_truncation(folder)) != "last_word":
        raise ValueError(
            f"{folder} was prepared with truncation {truncation!r}, and approaches learn the last word of its sentences: "
            "prepare the same text with last_word, too, and name that folder here."
        )
    splits = load_translations(folder)
    fingerprint = text_digest(*(split._fingerprint for split in splits.values()))
    return TrainingText(splits["train"], splits.get("validation"), fingerprint)


# A row is (number in the source, text, group).
_Row = tuple[int, str, str | None]


def _not_empty(texts, counts) -> Iterator[_Row]:
    for number, (text, group) in enumerate(texts):
        counts.read += 1
        if (text or "").strip():
            yield number, text, group
        else:
            counts.empty += 1


def _without_overlap(rows: Iterable[_Row], training, num_words, strip_niqqud, split, counts) -> list[_Row]:
    rows = list(rows)
    shared = shares_words([normalize(text, strip_niqqud) for _, text, _ in rows], training, num_words, split)
    kept = [row for row, is_shared in zip(rows, shared, strict=True) if not is_shared]
    counts.overlapping = len(rows) - len(kept)
    return kept


def shares_words(
    sentences: Sequence[str],
    training: TrainingText,
    num_words: int,
    split: Callable[[str], list[str]] = str.split,
) -> list[bool]:
    """For each sentence whether so many of its words in a row, or all if it has fewer, stand in a training or validation sentence.

    Args:
        sentences: normalised.
        training: the text to compare with.
        num_words: how many words in a row.
        split: divides a sentence into words.
    """
    runs = [_runs(sentence, num_words, split) for sentence in sentences]
    # The evaluation set is the smaller of the two: its runs of words are held in memory.
    asked = {run for sentence in runs for run in sentence}
    known = set()
    for texts in (training.train, training.validation):
        for sentence in read_column(texts, "sentence"):
            known.update(asked.intersection(_runs(sentence, num_words, split)))
    return [not known.isdisjoint(sentence) for sentence in runs]


def _runs(sentence, num_words, split) -> list[tuple[str, ...]]:
    """All `num_words` words in a row; the whole sentence if it is shorter."""
    words = words_of(sentence, split)
    return [tuple(words[i : i + num_words]) for i in range(max(1, len(words) - num_words + 1))]


def _drawn(rows: Iterable[_Row], max_questions, counts) -> list[_Row]:
    def by_hash(row):
        _, text, group = row
        return hashlib.sha256(normalize(text).encode()).digest(), group or ""

    drawn = heapq.nsmallest(max_questions, rows, key=by_hash)
    counts.not_sampled = counts.read - counts.empty - counts.overlapping - len(drawn)
    return sorted(drawn, key=lambda row: row[0])


def _divide_clean(text, split, counts) -> tuple[str, str]:
    if not text:
        counts.empty += 1
        return "", ""
    tokens = split(text)
    if not tokens or not is_word(tokens[-1]):
        counts.no_last_word += 1
        return "", ""
    truncated, word = split_last_word(text, split)
    if not truncated:
        counts.one_word += 1
        return "", ""
    return truncated, word


def _divide_as_the_authors(text, counts) -> tuple[str, str]:
    tokens = text.replace(".", "").split()
    if not tokens:
        counts.empty += 1
        return "", ""
    if len(tokens) == 1:
        counts.one_word += 1
        return "", ""
    return " ".join(tokens[:-1]), tokens[-1]
