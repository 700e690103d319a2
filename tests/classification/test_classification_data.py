"""Examples from local files with the datasets' true columns, what is asked of the Hub, and which rows are refused."""

import gzip
import json

import pytest
import stand_ins
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from tall_hf.classification import TASKS, ClassificationTask, data, read_examples, read_pairs, read_training_examples
from tall_hf.classification.data import examples_of


OWN = ClassificationTask(name="own", source="{text}", labels={0: "bad", 1: "good"})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_xnli(tmp_path):
    files = stand_ins.xnli(tmp_path)
    examples = read_examples(TASKS["xnli"], "he", data_files=files)
    assert examples.column_names == ["text", "prompt", "answer", "choices"]
    assert examples[1] == {
        "text": "Premise: יוסי גר בבית האדום Hypothesis: יוסי עייף Label:",
        "prompt": "",
        "answer": "Neutral",
        "choices": ["Entailment", "Neutral", "Contradiction"],
    }
    assert examples["answer"][:] == ["Entailment", "Neutral", "Contradiction", "Entailment"]
    assert read_training_examples(TASKS["xnli"], data_files=files)[0]["text"].startswith(
        "Premise: Dana lives in Haifa"
    )


def test_indicxnli(tmp_path):
    path = stand_ins.indicxnli(tmp_path)
    examples = read_examples(TASKS["indicxnli"], "hi", data_files=path)
    assert [row["answer"] for row in examples] == ["Entailment", "Neutral", "Contradiction", "Entailment"]
    template = tmp_path / "forward" / "{split}" / "xnli_{language}.json"
    assert read_examples(TASKS["indicxnli"], "hi", data_files=template)[:] == examples[:]


def test_sinhala_news(tmp_path):
    examples = read_examples(TASKS["sinhala_news"], "si", data_files=stand_ins.sinhala_news(tmp_path))
    # The labels' own order, which is not that of the dataset's card.
    assert examples["answer"][:] == ["Business", "Political", "Entertainment", "Sports", "Technology"]
    assert examples[1]["text"] == "News Sentence: ජනාධිපති, පක්ෂයේ රැස්වීමට ගියේය Category:"
    assert examples[0]["choices"] == examples["answer"][:]


def test_amazon_reviews(tmp_path):
    examples = read_examples(TASKS["amazon_reviews"], "de", data_files=stand_ins.amazon_reviews(tmp_path))
    assert examples["answer"][:] == ["Very Positive", "Neutral", "Very Negative"]
    assert examples[1]["text"] == "Review: NA Label:"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "csv.gz"])
def test_rows_of_ones_own_in_every_kind_of_file(tmp_path, kind):
    rows = Dataset.from_dict({"text": ["ein Buch", "NA", "12"], "label": [1, 0, 1], "note": ["", "x", "y"]})
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        rows.to_parquet(str(path))
    elif kind.startswith("json"):
        rows.to_json(str(path))
    else:
        rows.to_csv(str(path), sep="\t" if kind == "tsv" else ",")
        if kind.endswith("gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    examples = read_examples(OWN, "de", data_files=path)
    assert examples["text"][:] == ["ein Buch", "NA", "12"] and examples["answer"][:] == ["good", "bad", "good"]


def test_each_question_may_have_its_own_labels(tmp_path):
    task = ClassificationTask(name="own", source="{text}", prompt=" {text}?", choices_column="from", label_column="is")
    path = write(
        tmp_path / "a.jsonl",
        [{"text": "x", "is": "b", "from": ["a", "b"]}, {"text": "y", "is": "c", "from": ["c", "d"]}],
    )
    examples = read_examples(task, "en", data_files=path)
    assert [(row["answer"], row["choices"], row["prompt"]) for row in examples] == [
        ("b", ["a", "b"], " x?"),
        ("c", ["c", "d"], " y?"),
    ]
    for wrong, message in (
        ({"text": "x", "is": "e", "from": ["a", "b"]}, "row 1 has the label 'e', which is none of its choices"),
        ({"text": "x", "is": "a", "from": ["a"]}, "row 1: 'from' holds"),
        ({"text": "x", "is": "a", "from": "ab"}, "row 1: 'from' holds 'ab'"),
        ({"text": "x", "is": "a", "from": ["a", "a"]}, "two or more different labels"),
    ):
        with pytest.raises(ValueError, match=message):
            read_examples(task, "en", data_files=write(tmp_path / "b.jsonl", [wrong]))


def test_a_draw_is_the_same_each_time_and_of_parallel_questions_the_same_in_every_language(tmp_path):
    files = stand_ins.xnli(tmp_path, languages=("en", "he", "sw"), repeat=5)
    drawn = {
        language: read_examples(TASKS["xnli"], language, data_files=files, max_examples=7, seed=3)
        for language in ("en", "he", "sw")
    }
    assert drawn["he"][:] == drawn["sw"][:] and drawn["he"]["answer"][:] == drawn["en"]["answer"][:]
    assert len(drawn["en"]) == 7
    other = read_examples(TASKS["xnli"], "en", data_files=files, max_examples=7, seed=4)
    assert other["text"][:] != drawn["en"]["text"][:]
    assert len(read_examples(TASKS["xnli"], "en", data_files=files, max_examples=1000)) == 20


def test_a_row_that_was_drawn_is_called_by_its_place_in_the_file(tmp_path):
    rows = [{"text": "x", "label": 1}] * 50 + [{"text": "x", "label": 9}] * 50
    with pytest.raises(ValueError, match=r"row (5[1-9]|[6-9]\d|100) has the label 9"):
        read_examples(OWN, "de", data_files=write(tmp_path / "a.jsonl", rows), max_examples=20)


@given(rows=st.lists(st.tuples(st.text(max_size=8), st.integers(0, 1)), min_size=1, max_size=8))
def test_an_example_holds_the_text_and_a_label_of_its_row(rows):
    table = Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    kept = [(text.strip(), OWN.labels[label]) for text, label in rows if text.strip()]
    if len(kept) < len(rows):
        with pytest.raises(ValueError, match="is empty|are empty"):
            examples_of(table, OWN, "here")
    if kept:
        examples = examples_of(table, OWN, "here", skip_empty=True)
        assert list(zip(examples["text"], examples["answer"], strict=True)) == kept


# --- the Hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What is asked of the Hub, answered from stand-ins."""
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((*args, *kwargs.get("data_files", {}).values(), kwargs["split"]))
        return Dataset.from_dict(
            {"premise": ["a"], "hypothesis": ["b"], "label": [0], "text": ["c"], "comments": ["d"], "labels": [1]}
        )

    def hf_hub_download(*args, **kwargs):
        calls.append((*args, kwargs["repo_type"]))
        return str(stand_ins.indicxnli(tmp_path, "ta", "dev"))

    monkeypatch.setattr(data, "load_dataset", load_dataset)
    monkeypatch.setattr(data, "hf_hub_download", hf_hub_download)
    return calls


def test_what_is_asked_of_the_hub(asked):
    assert read_examples(TASKS["xnli"], "sw")["text"][:] == ["Premise: a Hypothesis: b Label:"]
    read_examples(TASKS["amazon_reviews"], "ja", "validation")
    assert read_examples(TASKS["sinhala_news"], "si")["answer"][:] == ["Political"]
    assert len(read_examples(TASKS["indicxnli"], "ta", "validation")) == 4
    assert asked == [
        ("facebook/xnli", "sw/test-*.parquet", "test"),
        ("mteb/AmazonReviewsClassification", "ja", "validation"),
        ("NLPC-UOM/Sinhala-News-Category-classification", None, "train"),
        ("Divyanshu/indicxnli", "forward/dev/xnli_ta.json", "dataset"),
    ]


def test_english_alone_is_trained_on(asked):
    read_training_examples(TASKS["xnli"])
    read_training_examples(TASKS["indicxnli"])
    read_training_examples(TASKS["amazon_reviews"])
    assert asked == [("facebook/xnli", "en/train-*.parquet", "train")] * 2 + [
        ("mteb/AmazonReviewsClassification", "en", "train")
    ]
    with pytest.raises(ValueError, match="has no rows in 'en'; .* name them with `data_files`"):
        read_training_examples(TASKS["sinhala_news"])


def test_without_a_network_it_says_what_to_do():
    with pytest.raises(OSError, match="facebook/xnli cannot be read from the Hub .* name them with `data_files`"):
        read_examples(TASKS["xnli"], "sw")
    with pytest.raises(OSError, match="Divyanshu/indicxnli cannot be read from the Hub"):
        read_examples(TASKS["indicxnli"], "ta")


def test_languages_and_splits_that_are_not_there():
    with pytest.raises(ValueError, match="no rows in 'si'; the task 'xnli' is there in ar, bg, de"):
        read_examples(TASKS["xnli"], "si")
    with pytest.raises(ValueError, match="no split 'validation'; there are test"):
        read_examples(TASKS["sinhala_news"], "si", "validation")
    with pytest.raises(ValueError, match="in no dataset on the Hub"):
        read_examples(OWN, "de")


# --- rows that do not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "a", "label": 1}], "no column 'text'; its columns are 'body', 'label'"),
        ([{"text": "a", "topic": 1}], "no column 'label'"),
        (
            [{"text": "a", "label": 1}, {"text": "b", "label": 7}],
            r"row 2 has the label 7; the task 'own' knows 0 \(bad\), 1 \(good\)",
        ),
        ([{"text": "a", "label": None}], "row 1 has the label None"),
        ([{"text": "a", "label": 1}, {"text": " ", "label": 1}], "'text' of row 2 is empty; .*--skip-empty"),
        ([{"text": None, "label": 1}], "'text' of row 1 is empty"),
    ],
)
def test_rows_that_do_not_fit(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_examples(OWN, "de", data_files=write(tmp_path / "rows.jsonl", rows))


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*/de-test.csv"):
        read_examples(OWN, "de", data_files=tmp_path / "{language}-{split}.csv")
    with pytest.raises(ValueError, match="between braces may stand"):
        read_examples(OWN, "de", data_files=tmp_path / "{lang}.csv")
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(ValueError, match="ends in '.xlsx'; rows are read from .*.csv"):
        read_examples(OWN, "de", data_files=tmp_path / "rows.xlsx")
    (tmp_path / "rows.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="rows.parquet cannot be read"):
        read_examples(OWN, "de", data_files=tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text('{"test": 3}', encoding="utf-8")
    with pytest.raises(ValueError, match="not a JSON object with one list of rows"):
        read_examples(TASKS["indicxnli"], "hi", data_files=tmp_path / "rows.json")
    (tmp_path / "rows.json").write_text('{"test": [', encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        read_examples(TASKS["indicxnli"], "hi", data_files=tmp_path / "rows.json")
    (tmp_path / "empty.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(ValueError, match="empty.csv cannot be read: .*no data"):
        read_examples(OWN, "de", data_files=tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="all 1 rows are empty"):
        read_examples(OWN, "de", data_files=write(tmp_path / "a.jsonl", [{"text": "", "label": 1}]), skip_empty=True)
    with pytest.raises(ValueError, match="`max_examples` must be at least 1"):
        read_examples(OWN, "de", data_files=tmp_path / "empty.csv", max_examples=0)


# --- translation pairs -----------------------------------------------------------------------------------------------


def test_translation_pairs(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text('דנה גרה\tDana lives\n"שלום\tHello "world"\n', encoding="utf-8")
    pairs = read_pairs(path, prompt="In English:")
    assert pairs[:] == {
        "text": ["דנה גרה", '"שלום'],
        "prompt": ["In English:"] * 2,
        "answer": ["Dana lives", 'Hello "world"'],
    }
    rows = [{"source": "דנה גרה", "target": "Dana lives"}, {"source": "שלום", "target": "Hello"}]
    assert read_pairs(write(tmp_path / "pairs.jsonl", rows))["answer"][:] == ["Dana lives", "Hello"]
    assert len(read_pairs(write(tmp_path / "pairs.jsonl", rows * 9), max_examples=5)) == 5
    rows = [{"he": "שלום", "en": "Hello"}]
    assert read_pairs(write(tmp_path / "named.jsonl", rows), "he", "en")["text"][:] == ["שלום"]
    with pytest.raises(ValueError, match="no column 'source', 'target'; its columns are 'he', 'en'"):
        read_pairs(tmp_path / "named.jsonl")
    with pytest.raises(ValueError, match="the 'target' of row 2 is empty"):
        read_pairs(write(tmp_path / "a.jsonl", [{"source": "a", "target": "b"}, {"source": "a", "target": ""}]))
    with pytest.raises(FileNotFoundError, match="no file"):
        read_pairs(tmp_path / "nowhere{}.tsv")
