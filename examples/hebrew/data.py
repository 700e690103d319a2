"""Divide the plain files of a language into training, validation and evaluation, so that no sentence is in two of them.

python data.py he.yaml --data FOLDER --output outputs/hebrew/data

Sentences are compared by their words, without case, punctuation and vowel points. What is kept to ask about is chosen by
hash, and everything that translates it goes with it: its English, the other translations of that English, and so on. The
language model reads whole paragraphs besides: none that has seven words in a row of such English.
"""

import argparse
import collections
import functools
import gzip
import hashlib
import itertools
import json
import os
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from tall_hf.data.words import count_words, normalize, words_of
from tall_hf.evaluation.scores import OVERLAP
from tall_hf.files import atomic_write, write_json


ROLES = ("train", "validation", "held_out")
_SOURCE_KEYS = {
    "file",
    "header",
    "text",
    "english",
    "where",
    "lines",
    "domain",
    "role",
    "held_out",
    "repeat",
    "most",
    "versions",
}
_SOURCE_KEYS |= {"adapters"}
_KEYS = {"language", "pivot", "strip_niqqud", "min_words", "max_words", "held_out", "sources", "english"}
_KEYS |= {"translation_tests", "question_tests"}


class Row(NamedTuple):
    """A sentence, its translation, or both; None where there is none. `source` is the entry of the configuration."""

    text: str | None
    english: str | None
    source: dict

    @property
    def keys(self) -> list[str]:
        """What the row is known by: its English, its text, or both."""
        return [f"{side}:{key(one)}" for side, one in (("en", self.english), ("text", self.text)) if one]


def read_yaml(path: str | os.PathLike, kind: type) -> dict | list:
    """Read a file of settings.

    Raises:
        ValueError: it is no YAML, or holds something else than `kind`.
    """
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(settings, kind) or not settings:
        raise ValueError(f"{path} should hold a {kind.__name__} with something in it, got {settings!r}.")
    return settings


def read_language(path: str | os.PathLike) -> dict:
    """Read the configuration of a language.

    Raises:
        ValueError: a key is missing or unknown.
    """
    language = read_yaml(path, dict)
    if unknown := sorted(language.keys() - _KEYS):
        raise ValueError(f"{path}: unknown {', '.join(unknown)}; he.yaml has every key.")
    if missing := sorted(_KEYS - language.keys()):
        raise ValueError(f"{path}: {', '.join(missing)} missing; he.yaml has every key.")
    tests = [*language["translation_tests"].values(), *language["question_tests"].values()]
    for source in [*language["sources"], *language["english"], *tests]:
        if wrong := sorted(set(source) - _SOURCE_KEYS):
            raise ValueError(f"{path}: unknown {', '.join(wrong)} in {source}; he.yaml explains the keys there are.")
        if source.get("role", "train") not in ROLES:
            raise ValueError(f"{path}: `role` must be one of {', '.join(ROLES)}, got {source['role']!r}.")
    if nameless := [source for source in language["sources"] if "domain" not in source]:
        raise ValueError(f"{path}: {nameless[0]} has no `domain`, which groups the questions.")
    return language


def read_scale(path: str | os.PathLike) -> dict:
    """Read the sizes of a scale, such as cpu.yaml; `bf16: auto` becomes whether this machine computes in bfloat16."""
    scale = read_yaml(path, dict)
    if missing := sorted({"run", "train"} - scale.keys()):
        raise ValueError(f"{path}: {', '.join(missing)} missing; cpu.yaml has every key.")
    for settings in (scale["run"], scale["train"]):
        if settings.get("bf16") == "auto":
            import torch  # takes seconds

            from tall_hf.measuring.device import processor_computes_bfloat16

            settings["bf16"] = torch.accelerator.is_available() or processor_computes_bfloat16()
    return scale


@functools.cache  # a row's keys are asked for again and again
def key(sentence: str) -> str:
    """What two spellings of a sentence have in common: its words, without case, punctuation and vowel points."""
    words = words_of(normalize(sentence, strip_niqqud=True))
    return " ".join(words).casefold() or sentence


def runs(name: str) -> set[str]:
    """All seven words in a row of a key; none of a shorter one."""
    words = name.split()
    return {" ".join(words[i : i + OVERLAP]) for i in range(len(words) - OVERLAP + 1)}


def digest(text: str) -> bytes:
    """A number that is the same each time, to draw and to shuffle by."""
    return hashlib.sha256(text.encode()).digest()


def read_rows(source: dict, folder: Path, strip_niqqud: bool) -> Iterator[Row]:
    """The rows of an entry of the configuration, normalised.

    Raises:
        FileNotFoundError: the file is not in `folder`.
        ValueError: the file has no such column.
    """
    path = folder / source["file"]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; name the folder with the data files by --data.")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        table = (line.rstrip("\n").split("\t") for line in lines)
        if ".tsv" in path.suffixes:
            names = source.get("header") or next(table)
        else:
            names, table = ["line"], ([" ".join(cells)] for cells in table)
        wanted = [name for name in (source.get("text"), source.get("english"), *source.get("where", ())) if name]
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(f"{path} has no column {missing[0]!r}; there are {', '.join(names)}.")
        for cells in itertools.islice(table, *source.get("lines", [None])):
            row = dict(zip(names, cells, strict=False))
            if all(row.get(name) in values for name, values in source.get("where", {}).items()):
                text = normalize(row.get(source.get("text")) or "", strip_niqqud)
                english = normalize(row.get(source.get("english")) or "")
                if (text or "text" not in source) and (english or "english" not in source):
                    yield Row(text or None, english or None, source)


def translation_groups(rows: Iterable[Row]) -> dict[str, str]:
    """For each key the name of its group: what translates it, what translates that, and so on."""
    parents: dict[str, str] = {}

    def root(name):
        while parents.setdefault(name, name) != name:
            parents[name] = name = parents[parents[name]]
        return name

    for row in rows:
        roots = sorted(map(root, row.keys))
        parents[roots[-1]] = roots[0]
    return {name: root(name) for name in list(parents)}


def divide(rows: list[Row], tests: Iterable[Row], language: dict) -> tuple[dict[str, list[Row]], set[str]]:
    """Give every row a role, and say which keys are kept away from training.

    Of each domain `held_out` groups of translations are drawn by hash, a fifth of those that there are at most, and as many
    with pairs to validate on, a twentieth at most; both among the entries that allow it. Entries with a `role` of their
    own are taken whole.

    Returns:
        Rows by role: "train", "validation" (pairs) and "held_out" (of each group one sentence); and the keys of all that is
        validated on, held out or tested on, and of what translates it.
    """
    tests = list(tests)
    # What translates a sentence that is tested on gives away its words, whether or not the test has that translation.
    groups = translation_groups([*rows, *tests])
    tested = {groups[row.keys[0]] for row in tests}

    def group(row):
        return groups[row.keys[0]]

    roles = {group(row): row.source["role"] for row in rows if "role" in row.source}
    # Questions are drawn first, of every kind of row; then pairs to validate on, of what they left.
    for role in ("held_out", "validation"):
        drawable = collections.defaultdict(set)
        for row in rows:
            fits = _askable(row, language) if role == "held_out" else len(row.keys) == 2
            if row.source.get("held_out") and fits and group(row) not in roles:
                drawable[row.source["domain"]].add(group(row))
        for names in drawable.values():
            drawn = sorted(names, key=lambda name: digest(f"{role} {name}"))
            most = len(names) // (5 if role == "held_out" else 20)
            roles.update(dict.fromkeys(drawn[: min(language["held_out"], most)], role))

    divided: dict[str, list[Row]] = {role: [] for role in ROLES}
    asked = set()
    # In the order of a hash; of a group rather the sentence that has a translation, to be asked about with a reference.
    for row in sorted(rows, key=lambda row: (row.english is None, digest(" ".join(row.keys)))):
        if group(row) in tested:
            continue
        role = roles.get(group(row), "train")
        if role == "held_out":
            by_people = row.source.get("held_out") or row.source.get("role") == "held_out"
            if not by_people or group(row) in asked or not _askable(row, language):
                continue
            asked.add(group(row))
        if role != "validation" or len(row.keys) == 2:
            divided[role].append(row)
    return divided, {name for name, root in groups.items() if root in tested or roles.get(root, "train") != "train"}


def _askable(row: Row, language: dict) -> bool:
    return row.text is not None and language["min_words"] <= count_words(row.text) <= language["max_words"]


def write_lines(path: Path, lines: Iterable[str | dict]) -> int:
    """Write texts, or JSON rows, a line each; whole or not at all.

    Returns:
        How many.

    Raises:
        ValueError: there are none.
    """
    count = 0
    with atomic_write(path) as aside:
        with open(aside, "w", encoding="utf-8") as file:
            for line in lines:
                file.write((json.dumps(line, ensure_ascii=False) if isinstance(line, dict) else line) + "\n")
                count += 1
        if not count:
            raise ValueError(f"Nothing is left for {path.name}: see `held_out` and the sources in the configuration.")
    return count


def write_data(language: dict, folder: Path, output: Path, subsets: Iterable[int] = ()) -> None:
    """Write the files of a language to `output`.

    `pairs.train.jsonl` and `pairs.validation.jsonl` (english, text) are for the translators, `english.train.txt` and
    `english.validation.txt` for the language model, `text.jsonl` (text, group) for the TALL and its rivals: shuffled, so
    that its first lines are a sample. `held_out.jsonl` and a file for each question test (text, group, english) are asked
    about, `held_out.references.jsonl` has those of the former that have English; a file for each translation test
    (english, text) measures translators. `counts.json`, their lines, is written last.

    Args:
        language: as `read_language` gives it.
        folder: where its files are.
        output: folder to write to.
        subsets: for each number a further `text-NUMBER.jsonl` with so many of the first sentences.
    """
    niqqud, limit = language["strip_niqqud"], language["held_out"]
    rows = []
    for source in language["sources"]:
        # Drawn by another hash than the one that shuffles below, or what is drawn would come first.
        own = sorted(read_rows(source, folder, niqqud), key=lambda row: digest(f"draw {' '.join(row.keys)}"))
        rows += own[: source.get("most")]
    translation_tests, question_tests = (
        {name: list(read_rows(source, folder, niqqud)) for name, source in language[kind].items()}
        for kind in ("translation_tests", "question_tests")
    )
    tests = [row for test in (*translation_tests.values(), *question_tests.values()) for row in test]
    divided, kept_away = divide(rows, tests, language)

    output.mkdir(parents=True, exist_ok=True)
    counts = {}

    def write(name, lines):
        counts[name] = write_lines(output / name, lines)

    def pair(row):
        return {"english": row.english, "text": row.text}

    def question(row):
        return {"text": row.text, "group": row.source.get("domain", "-"), "english": row.english or ""}

    train = sorted(divided["train"], key=lambda row: digest(" ".join(row.keys)))
    pairs = list(translator_pairs(train, language["max_words"]))
    write("pairs.train.jsonl", (pair(row) for row in pairs for _ in range(row.source.get("repeat", 1))))
    write("pairs.validation.jsonl", map(pair, divided["validation"][:limit]))

    # A sentence that is kept away may stand in the middle of a paragraph.
    away = {run for name in kept_away if name.startswith("en:") for run in runs(name.removeprefix("en:"))}
    english: dict[str, str] = {}
    for source in language["english"]:
        for row in read_rows(source, folder, niqqud):
            if row.keys[0] not in kept_away and away.isdisjoint(runs(key(row.english))):
                english.setdefault(row.keys[0], row.english)
    shuffled = sorted(english, key=digest)
    kept = min(limit, len(shuffled) // 10)
    write("english.validation.txt", (english[name] for name in shuffled[:kept]))
    write("english.train.txt", (english[name] for name in shuffled[kept:]))

    texts = {row.text: row for row in train if row.source.get("adapters", True) and _askable(row, language)}
    for sentences in {None, *subsets}:
        if (sentences or 0) > len(texts):
            print(
                f"The text has {len(texts):,} sentences in all, fewer than the subset of {sentences:,}.",
                file=sys.stderr,
            )
        chosen = itertools.islice(texts.items(), sentences)
        rows = ({"text": text, "group": row.source["domain"]} for text, row in chosen)
        write(text_name(sentences), rows)
    write("held_out.jsonl", map(question, divided["held_out"]))
    if with_english := [row for row in divided["held_out"] if row.english]:
        write("held_out.references.jsonl", map(question, with_english))
    for name, test in question_tests.items():
        write(f"{name}.jsonl", map(question, test))
    for name, test in translation_tests.items():
        write(f"{name}.pairs.jsonl", map(pair, test))
    write_json(output / "counts.json", counts)


def translator_pairs(rows: Iterable[Row], max_words: int) -> Iterator[Row]:
    """The rows that translators learn from: no longer ones than a TALL reads, and `versions` of an English sentence."""
    counts = collections.Counter()
    for row in rows:
        if row.english and row.text and max(count_words(row.english), count_words(row.text)) <= max_words:
            # By heart is how a translator into English learns what it sees too often.
            most = row.source.get("versions")
            counts[row.english] += most is not None
            if most is None or counts[row.english] <= most:
                yield row


def text_name(sentences: int | None) -> str:
    """The file of the TALL's training text."""
    return f"text-{sentences}.jsonl" if sentences else "text.jsonl"


def read_jsonl(path: Path) -> list[dict[str, str]]:
    """The rows of a file that `write_data` wrote."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def other_sentences(sentences: Sequence[str]) -> list[str]:
    """For each sentence another one's place in a row that is shuffled and turned by one, so that none keeps its own."""
    order = list(range(len(sentences)))
    random.Random(0).shuffle(order)
    others = list(sentences)
    for place, source in zip(order, order[1:] + order[:1], strict=True):
        others[place] = sentences[source]
    return others


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", help="configuration of the language, such as he.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--subset", type=int, action="append", default=[], help="a smaller training text; repeatable")
    options = parser.parse_args()
    write_data(read_language(options.language), options.data, options.output, options.subset)


if __name__ == "__main__":
    main()
