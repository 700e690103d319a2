"""The folder of training rows: what the collator takes, a validation split, reruns that trust it, and its owner."""

import copy
import io
import json

import parts
import pytest
import stand_ins
import torch
from datasets import Dataset
from filelock import FileLock
from rich.console import Console

from tall_hf import LayerFusionCollator
from tall_hf.classification import (
    TASKS,
    read_pairs,
    read_training_examples,
)
from tall_hf.data import examples as examples_room
from tall_hf.data.examples import load_prepared_examples, prepare_examples
from tall_hf.data.folder import check_prepared_output
from tall_hf.data.prepare import OUTPUT


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=120)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xnli")
    return read_training_examples(TASKS["xnli"], data_files=stand_ins.xnli(folder))


@pytest.fixture
def run(fused, examples, console):
    def run(folder, chosen=None, **options):
        options = {"validation_share": 0.5, "source_lang": "eng_Latn", "console": console, **options}
        return prepare_examples(fused()[1], examples if chosen is None else chosen, folder, **options)

    return run


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_are_what_the_processor_makes_and_the_collator_takes(run, fused, examples, tmp_path):
    model, processor = fused()
    splits = run(tmp_path / "data", details={"task": "xnli"})
    assert set(splits) == {"train", "validation"}
    report = json.loads((tmp_path / "data" / examples_room.REPORT).read_text(encoding="utf-8"))
    assert report["counts"] == {name: len(rows) for name, rows in splits.items()} and report["task"] == "xnli"
    assert sum(report["counts"].values()) == len(examples)
    expected = processor(
        text=examples["text"][:], prompt="", text_target=examples["answer"][:], source_lang="eng_Latn"
    )
    made = [row for rows in splits.values() for row in rows]
    for name in ("source_input_ids", "input_ids", "mm_token_type_ids", "labels"):
        assert sorted(row[name] for row in made) == sorted(expected[name])
    batch = LayerFusionCollator(processor)(made)
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)
    answers = [processor.tokenizer.decode([token for token in row["labels"] if token >= 0]) for row in made]
    assert sorted(set(answers)) == ["Contradiction</s>", "Entailment</s>", "Neutral</s>"]


def test_a_text_is_in_one_split_alone(run, tmp_path):
    words = sorted({word for line in parts.ENGLISH for word in line.split()})[:20]
    many = Dataset.from_dict({"text": words * 3, "prompt": [""] * 60, "answer": ["a", "b", "c"] * 20})
    splits = run(tmp_path / "data", many)
    sources = {name: {tuple(row["source_input_ids"]) for row in rows} for name, rows in splits.items()}
    assert not sources["train"] & sources["validation"]
    whole = run(tmp_path / "whole", many, validation_share=0)
    assert set(whole) == {"train"} and len(whole["train"]) == 60


def test_the_same_call_again_does_nothing_and_another_one_replaces_it(run, fused, examples, console, tmp_path):
    run(tmp_path / "data")
    before = files(tmp_path / "data")
    run(tmp_path / "data")
    assert files(tmp_path / "data") == before and "prepared already" in console.file.getvalue()
    fused()[1].source_tokenizer.src_lang = "heb_Hebr"  # as another call leaves it
    run(tmp_path / "data")
    assert files(tmp_path / "data") == before
    again = run(tmp_path / "data", validation_share=0)
    assert len(again["train"]) == len(examples) and not (tmp_path / "data" / "validation").exists()


def test_rows_are_for_one_processor(run, fused, tmp_path):
    _, processor = fused()
    made = run(tmp_path / "data")
    loaded = load_prepared_examples(tmp_path / "data", processor)
    assert loaded["train"][:] == made["train"][:]
    assert loaded["train"]._fingerprint == load_prepared_examples(tmp_path / "data", processor)["train"]._fingerprint
    with pytest.raises(ValueError, match="another processor"):
        load_prepared_examples(tmp_path / "data", fused("qwen2")[1])
    with pytest.raises(FileNotFoundError, match="tall fusion prepare"):
        load_prepared_examples(tmp_path, processor)
    rows = Dataset.from_dict({"input_ids": [[1]]})
    rows.save_to_disk(tmp_path / "data" / "train")
    with pytest.raises(ValueError, match="another command has written there"):
        load_prepared_examples(tmp_path / "data", processor)


def test_a_processor_is_left_as_it_was(run, fused, tmp_path):
    _, processor = fused()
    before = processor.source_tokenizer.src_lang
    other = {"heb_Hebr": "eng_Latn"}.get(before, "heb_Hebr")
    run(tmp_path / "data", source_lang=other)
    load_prepared_examples(tmp_path / "data", processor)
    assert processor.source_tokenizer.src_lang == before


def test_nothing_is_there_before_all_is(run, monkeypatch, tmp_path):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(examples_room, "put_in_place", killed)
        run(tmp_path / "data")
    assert {path.name for path in (tmp_path / "data").iterdir()} <= {".lock"}
    assert set(run(tmp_path / "data")) == {"train", "validation"}
    (tmp_path / "data" / examples_room.REPORT).unlink()
    with pytest.raises(FileExistsError, match="holds no rows"):
        run(tmp_path / "data")


def test_translation_pairs_are_the_first_stage(run, fused, tmp_path):
    _, processor = fused()
    path = tmp_path / "pairs.tsv"
    path.write_text("דנה גרה\tDana lives\nשלום\tHello\nאת עייפה\tYou are tired\n", encoding="utf-8")
    rows = run(tmp_path / "data", read_pairs(path), validation_share=0, source_lang=None)["train"]
    answers = [processor.tokenizer.decode([token for token in labels if token >= 0]) for labels in rows["labels"]]
    assert answers == ["Dana lives</s>", "Hello</s>", "You are tired</s>"]


def test_what_is_refused(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="holds no rows"):
        run(tmp_path / "other")
    with pytest.raises(ValueError, match="`validation_share`"):
        run(tmp_path / "data", validation_share=1)
    with pytest.raises(ValueError, match="none falls to validation with validation_share=1e-09"):
        run(tmp_path / "data", validation_share=1e-9)
    run(tmp_path / "data")
    with FileLock(tmp_path / "data" / ".lock"), pytest.raises(BlockingIOError):
        run(tmp_path / "data")


def test_an_encoder_of_many_languages_wants_to_know_which(fused, examples, console, tmp_path):
    processor = copy.deepcopy(fused()[1])
    with pytest.raises(ValueError, match="does not know the language code 'english'"):
        prepare_examples(processor, examples, tmp_path / "data", source_lang="english", console=console)
    processor.source_lang = None
    with pytest.raises(ValueError, match="wants the code of the language it reads"):
        prepare_examples(processor, examples, tmp_path / "data", console=console)


def test_the_rows_of_the_other_model_are_left_alone(run, tmp_path):
    (tmp_path / "tall").mkdir()
    (tmp_path / "tall" / "prepare.json").write_text("{}", encoding="utf-8")
    check_prepared_output(tmp_path / "tall", *OUTPUT)
    with pytest.raises(FileExistsError):
        run(tmp_path / "tall")
