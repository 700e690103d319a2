"""Texts of files and datasets: every kind gives the same ones, and what cannot be read is named with its place."""

import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from tall_hf.data import CorpusSettings, build_corpus
from tall_hf.data.corpus import load_corpus
from tall_hf.data.texts import read_texts


ALL = CorpusSettings(min_words=2, validation_share=0)


def write(path, text, encoding="utf-8"):
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(text.encode(encoding))
    return path


LINES = ["דנה גרה בחיפה", 'הוא אמר "שלום"', "NA null"]


@pytest.fixture
def sources(tmp_path):
    table = [{"number": i, "he": line} for i, line in enumerate(LINES)]
    doubled = [line.replace('"', '""') for line in LINES]
    quoted = "\n".join(f'{i},"{line}"' for i, line in enumerate(doubled))
    tabbed = "\n".join(f"{row['number']}\t{row['he']}" for row in table)
    jsonl = "\n".join(json.dumps(row, ensure_ascii=False) for row in table)
    dataset = Dataset.from_list(table)
    return {
        "txt": (write(tmp_path / "a.txt", "\ufeff" + "\r\n".join(LINES)), None),
        "txt.gz": (write(tmp_path / "a.txt.gz", "\n".join(LINES) + "\n"), None),
        "csv": (write(tmp_path / "a.csv", "number,he\n" + quoted), "he"),
        "csv.gz": (write(tmp_path / "b.csv.gz", "number,he\n" + quoted), "he"),
        "tsv": (write(tmp_path / "a.tsv", "number\the\n" + tabbed), "he"),
        "jsonl": (write(tmp_path / "a.jsonl", jsonl), "he"),
        "jsonl.gz": (write(tmp_path / "b.jsonl.gz", jsonl), "he"),
        "json": (write(tmp_path / "a.json", json.dumps(table, ensure_ascii=False)), "he"),
        "dataset": (dataset, "he"),
        "streaming": (dataset.to_iterable_dataset(), "he"),
        "list": (LINES, None),
    }


@pytest.mark.parametrize(
    "kind",
    ["txt", "txt.gz", "csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "json", "dataset", "streaming", "list"],
)
def test_every_kind_of_source_gives_the_same_corpus(sources, kind, tmp_path):
    source, column = sources[kind]
    corpus, counts = build_corpus(source, tmp_path / "corpus.arrow", column, ALL)
    assert corpus["sentence"][:] == ["דנה גרה בחיפה", "הוא אמר שלום", "NA null"]
    assert counts.read == counts.train == 3
    again = load_corpus(tmp_path / "corpus.arrow")
    assert again._fingerprint == corpus._fingerprint
    assert corpus._fingerprint == build_corpus(LINES, tmp_path / "other.arrow", None, ALL)[0]._fingerprint


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "dataset", "streaming"])
def test_a_column_that_does_not_exist_is_answered_with_those_that_do(sources, kind):
    source, _ = sources[kind]
    for column, named in (("hebrew", "hebrew"), (None, "text")):
        with pytest.raises(ValueError, match=f"no column '{named}'; the columns are 'number', 'he'"):
            list(read_texts(source, column))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "text\nאחת\nשתיים,שלוש\n"), ("b.jsonl", '{"text": "אחת"}\n{"text": "שתיים\n'), ("c.csv", "text\n")],
)
def test_a_broken_table_is_named(tmp_path, name, content):
    with pytest.raises(ValueError, match=f"{name}: "):
        list(read_texts(write(tmp_path / name, content)))


@pytest.mark.parametrize("name", ["bad.txt", "bad.txt.gz", "bad.csv"])
def test_a_file_that_is_not_utf_8_is_refused_with_the_place(tmp_path, name):
    good = "text\nשלום\n"
    path = tmp_path / name
    content = good.encode() + "אב".encode() + "שלום".encode("windows-1255")
    with gzip.open(path, "wb") if name.endswith("gz") else open(path, "wb") as file:
        file.write(content)
    offset = len(good.encode()) + 4
    with pytest.raises(ValueError, match=rf"{name} is not UTF-8: line 3, byte 5 .*offset {offset}.* 0xf9"):
        list(read_texts(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        build_corpus(write(tmp_path / "empty.txt", ""), tmp_path / "c.arrow")
    with pytest.raises(ValueError, match="is empty"):
        build_corpus(write(tmp_path / "empty.csv", ""), tmp_path / "c.arrow")
    with pytest.raises(FileNotFoundError, match="no file"):
        build_corpus(tmp_path / "absent.txt", tmp_path / "c.arrow")
    for name in ("text.pdf", "text", "text.gz"):
        with pytest.raises(ValueError, match=r"\.txt, \.text, \.csv, \.tsv, \.json"):
            build_corpus(write(tmp_path / name, "שלום"), tmp_path / "c.arrow")
    whole = write(tmp_path / "whole.txt.gz", "דנה גרה בחיפה\n" * 1000).read_bytes()
    (tmp_path / "cut.txt.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        build_corpus(tmp_path / "cut.txt.gz", tmp_path / "c.arrow")
    with pytest.raises(ValueError, match="plain text and has no column"):
        build_corpus(write(tmp_path / "plain.txt", "שלום"), tmp_path / "c.arrow", "he")
    assert not list(tmp_path.glob("*c.arrow*"))


def test_wrong_sources():
    with pytest.raises(ValueError, match="DatasetDict with splits train"):
        list(read_texts(DatasetDict({"train": Dataset.from_list([{"text": "א"}])}), "text"))
    with pytest.raises(ValueError, match="Row 2 holds int 3"):
        list(read_texts(["א", 3]))
    with pytest.raises(ValueError, match="Row 1 holds int 0"):
        list(read_texts(Dataset.from_list([{"number": 0}]), "number"))
