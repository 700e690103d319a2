"""From texts to questions: what is left out under which protocol, which sentences are drawn, and overlap with training."""

import dataclasses
import io
import random

import pytest
from datasets import Dataset
from rich.console import Console

from tall_hf.data import CorpusCounts, CorpusSettings, prepare
from tall_hf.data.corpus import clean_sentences
from tall_hf.evaluation.approach import Question, TrainingText
from tall_hf.evaluation.task import read_questions, training_text


TEXTS = [
    'דנה אמרה: "הלכתי לבית-ספר".',
    "הוא מלך !",
    "שלום.",
    "",
    "יוסי גר ב.ת.ל אביב.",
    "\u202bהילדה  קוראת\tספר\u202c",
    "דנה גרה בחיפה",
    "דנה גרה בחיפה.",
    "*",
]


def ask(texts, protocol="clean", **options):
    questions, counts = read_questions(texts, protocol, **options)
    return [(question.truncated, question.missing_word) for question in questions], counts


def test_clean():
    questions, counts = ask(TEXTS)
    assert questions == [
        ('דנה אמרה: "הלכתי', "לבית-ספר"),
        ("יוסי גר ב.ת.ל", "אביב"),
        ("הילדה קוראת", "ספר"),
        ("דנה גרה", "בחיפה"),
        ("דנה גרה", "בחיפה"),
    ]
    assert (counts.read, counts.empty, counts.no_last_word, counts.one_word) == (9, 2, 1, 1)
    assert (counts.questions, counts.duplicates) == (5, 1)


def test_paper():
    questions, counts = ask(TEXTS, "paper")
    assert questions == [
        ('דנה אמרה: "הלכתי', 'לבית-ספר"'),
        ("הוא מלך", "!"),
        ("יוסי גר בתל", "אביב"),
        ("\u202bהילדה קוראת", "ספר\u202c"),
        ("דנה גרה", "בחיפה"),
        ("דנה גרה", "בחיפה"),
    ]
    assert (counts.read, counts.empty, counts.no_last_word, counts.one_word) == (9, 1, 0, 2)
    assert (counts.questions, counts.duplicates) == (6, 1)


@pytest.mark.parametrize("ending", ["!", '"', "...", "–", "%", "״", ". ."])
def test_punctuation_alone_at_the_end_is_no_word(ending):
    questions, counts = ask([f"הוא מלך {ending}", "הוא מלך"])
    assert questions == [("הוא", "מלך")]
    assert counts.no_last_word == 1


def test_a_script_without_spaces_brings_its_own_split():
    questions, counts = ask(["我爱北京", "你好！"], split=list)
    assert questions == [("我爱北", "京")]
    assert counts.no_last_word == 1


def test_niqqud_goes_on_demand():
    assert ask(["שָׁלוֹם לְךָ"], strip_niqqud=True)[0] == [("שלום", "לך")]
    assert ask(["שָׁלוֹם לְךָ"])[0] == [("שָׁלוֹם", "לְךָ")]


def test_the_draw_knows_no_order_and_no_protocol():
    texts = [f"משפט מספר {i} נגמר{' !' if i % 10 == 0 else ' כאן.'}" for i in range(200)]
    drawn, counts = read_questions(texts, "paper", max_questions=50)
    assert (len(drawn), counts.not_sampled) == (50, 150)
    shuffled = random.Random(0).sample(texts, len(texts))
    again, _ = read_questions(shuffled, "paper", max_questions=50)
    assert [question.sentence for question in again] != [question.sentence for question in drawn]
    assert set(again) == set(drawn)
    clean, counts = read_questions(texts, "clean", max_questions=50)
    numbers, clean_numbers = ([q.truncated.split()[2] for q in questions] for questions in (drawn, clean))
    assert clean_numbers == [number for number in numbers if int(number) % 10]
    assert counts.no_last_word == 50 - len(clean) > 0
    # A smaller draw is part of a larger one, and neither is simply the beginning.
    fewer, _ = read_questions(texts, "paper", max_questions=20)
    assert set(fewer) < set(drawn)
    assert numbers != [str(i) for i in range(50)]
    assert len(read_questions(texts, "paper", max_questions=1000)[0]) == 200


def test_duplicates_are_drawn_together():
    texts = ["דנה גרה בחיפה"] * 5 + ["יוסי גר בבית"] * 5
    questions, counts = ask(texts, max_questions=5)
    assert len(set(questions)) == 1
    assert counts.duplicates == 4


def test_groups(tmp_path):
    path = tmp_path / "domains.csv"
    path.write_text("text,domain\nדנה גרה בחיפה,news\nיוסי גר בבית,\nרות אוכלת תפוח,7\n", encoding="utf-8")
    questions, _ = read_questions(path, group_column="domain")
    assert [question.group for question in questions] == ["news", "", "7"]
    rows = Dataset.from_list([{"line": "דנה גרה בחיפה", "domain": 3}, {"line": "יוסי גר בבית", "domain": None}])
    questions, _ = read_questions(rows, column="line", group_column="domain")
    assert questions == [Question("דנה גרה", "בחיפה", group="3"), Question("יוסי גר", "בבית", group=None)]
    with pytest.raises(ValueError, match="no column 'topic'; the columns are 'text', 'domain'"):
        read_questions(path, group_column="topic")
    (tmp_path / "plain.txt").write_text("דנה גרה בחיפה\n", encoding="utf-8")
    with pytest.raises(ValueError, match="plain text and has no column 'domain'"):
        read_questions(tmp_path / "plain.txt", group_column="domain")
    with pytest.raises(ValueError, match="no column 'domain'"):
        read_questions(["דנה גרה בחיפה"], group_column="domain")


@pytest.fixture
def training():
    rows = [{"sentence": text} for text in ("א ב ג ד ה ו", "שלום לך")]
    return TrainingText(Dataset.from_list(rows), Dataset.from_list([{"sentence": "ז ח ט י כ"}]), "x")


@pytest.mark.parametrize(
    "text, is_known",
    [
        ("ת ב ג ד ה ת", True),  # four in a row
        ("ת, ב, ג, ד - ה; ת", True),  # punctuation aside
        ("ת ב ג ד ת ה", False),  # three
        ("ב ג ד", False),  # shorter, and part of a sentence
        ("שלום לך.", True),  # shorter, and there as a whole
        ("ת ח ט י כ", True),  # of the validation text
        ("ו ה ד ג ב א", False),
    ],
)
@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_overlap(training, text, is_known, protocol):
    _, counts = read_questions([text, "משפט אחר לגמרי"], protocol, training=training, exclude_overlap=4)
    assert counts.overlapping == is_known
    assert counts.questions == 2 - is_known


def test_sentences_that_were_learned_are_counted_and_kept(training):
    known = training.train["sentence"][0]
    questions, counts = read_questions([known, f"{known} ועוד"], training=training)
    assert (len(questions), counts.learned) == (2, 1)
    assert read_questions([known])[1].learned == 0


@pytest.mark.parametrize(
    "text, split, protocols",
    [
        ("我爱北京", list, ["clean"]),  # words without a space between them
        ("我 爱北京", list, ["clean", "paper"]),
        ('דנה  אמרה: "הלכתי לבית-ספר".', str.split, ["clean", "paper"]),
        ("יוסי גר ב.ת.ל אביב.", str.split, ["clean", "paper"]),
        ("\u202bהילדה קוראת\tספר\u202c", str.split, ["clean", "paper"]),
    ],
)
def test_a_learned_sentence_is_known_as_the_corpus_spells_it(text, split, protocols):
    settings = CorpusSettings(min_words=2, split=split, validation_share=0)
    [row] = clean_sentences([text], settings, CorpusCounts())
    known = TrainingText(Dataset.from_list([{"sentence": row["sentence"]}]), None, "x")
    for protocol in protocols:
        assert read_questions([text], protocol, training=known, split=split)[1].learned == 1
        assert read_questions([f"{text[:2]}{text}"], protocol, training=known, split=split)[1].learned == 0


def test_a_learned_sentence_is_known_without_its_points():
    known = TrainingText(Dataset.from_list([{"sentence": "שלום לך"}]), None, "x")
    for protocol in ("clean", "paper"):
        assert read_questions(["שָׁלוֹם לְךָ"], protocol, training=known, strip_niqqud=True)[1].learned == 1
        assert read_questions(["שָׁלוֹם לְךָ"], protocol, training=known)[1].learned == 0


def test_overlap_goes_before_the_draw(training):
    texts = ["ת ב ג ד ה ת"] * 5 + ["משפט אחר לגמרי"]
    questions, counts = ask(texts, training=training, exclude_overlap=4, max_questions=1)
    assert questions == [("משפט אחר", "לגמרי")]
    assert (counts.overlapping, counts.not_sampled) == (5, 0)


def test_the_table_accounts_for_every_text():
    _, counts = ask([*TEXTS, *(f"משפט מספר {i}" for i in range(20))], max_questions=15)
    console = Console(file=io.StringIO(), width=100)
    console.print(counts.table())
    shown = console.file.getvalue()
    left_out = sum(
        getattr(counts, name) for name in ("empty", "overlapping", "not_sampled", "no_last_word", "one_word")
    )
    assert counts.read == left_out + counts.questions == 29
    assert "not drawn" in shown and "100.0%" in shown


def test_no_sentence_left_says_why():
    with pytest.raises(
        ValueError, match="Of 3 texts none is left to ask about: 1 empty, 1 punctuation .*, 1 a single"
    ):
        read_questions(["", "מלך !", "שלום"])
    with pytest.raises(ValueError, match="there are none"):
        read_questions([])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"protocol": "dirty"}, "`protocol` must be one of 'clean', 'paper', got 'dirty'"),
        ({"max_questions": 0}, "`max_questions` must be at least 1, got 0"),
        ({"exclude_overlap": 7}, "tall prepare"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        read_questions(TEXTS, **options)


def test_training_text_is_what_was_prepared(composed, tmp_path):
    texts = [f"דנה גרה בבית מספר {i}." for i in range(12)]
    settings = CorpusSettings(min_words=3, validation_share=0.3)

    def prepared(name, texts, settings=settings):
        quiet = Console(file=io.StringIO())
        prepare(*composed("gated"), texts, tmp_path / name, settings=settings, console=quiet, num_beams=1)
        return training_text(tmp_path / name)

    first, second, other = prepared("a", texts), prepared("b", texts), prepared("c", texts[:-1])
    assert len(first.train) + len(first.validation) == 12
    row = first.train[0]
    assert row["sentence"] == f"{row['truncated']} {row['missing_word']}"
    assert set(row) == {"sentence", "truncated", "missing_word", "translation"}
    assert first.fingerprint == second.fingerprint != other.fingerprint
    _, counts = read_questions([*texts, "משפט אחר"], training=first, exclude_overlap=7)
    assert counts.overlapping == 12
    with pytest.raises(FileNotFoundError, match="run `tall prepare`"):
        training_text(tmp_path)
    with pytest.raises(ValueError, match="'random_word'.*last_word, too"):
        prepared("d", texts, dataclasses.replace(settings, truncation="random_word"))
