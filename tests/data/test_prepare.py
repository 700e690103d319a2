"""The prepared folder: rows the collator takes, labels that spell the sentence, reruns that trust it, and its owner."""

import dataclasses
import errno
import io
import json
import random
import shutil

import parts
import pytest
import torch
from datasets import Dataset, load_from_disk
from filelock import FileLock
from rich.console import Console
from typer.testing import CliRunner

from tall_hf import LastTokenCollator, publishing
from tall_hf.cli import app
from tall_hf.data import CorpusSettings, load_prepared, prepare, strip_punctuation
from tall_hf.data import translation as translation_module
from tall_hf.data.prepare import prepared_truncation


SETTINGS = CorpusSettings(min_words=3, validation_share=0.2)


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    return [" ".join(rng.choices(parts.WORDS, k=rng.randint(2, 9))) + rng.choice(["", ".", " !"]) for _ in range(60)]


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=120)


@pytest.fixture
def run(composed, texts, console):
    def run(folder, source=None, **options):
        options = {"settings": SETTINGS, "console": console, "num_beams": 1, **options}
        return prepare(*composed("gated"), texts if source is None else source, folder, **options)

    return run


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_are_what_the_processor_makes_and_the_collator_takes(run, composed, tmp_path):
    model, processor = composed("gated")
    splits = run(tmp_path / "data")
    assert set(splits) == {"train", "validation"}
    for name, rows in splits.items():
        assert rows.column_names == ["input_ids", "llm_input_ids", "labels", "continuation_length"]
        texts = load_from_disk(str(tmp_path / "data" / "translations"))[name]
        assert texts.column_names == ["sentence", "truncated", "missing_word", "translation"]
        for row, text in zip(rows, texts, strict=True):
            assert processor.decode_target(row["labels"]) == text["sentence"]
            assert text["sentence"] == f"{text['truncated']} {text['missing_word']}"
            length = row.pop("continuation_length")
            assert processor.decode_target(row["labels"][-length:]) == text["missing_word"]
            assert row == {
                key: value[0]
                for key, value in processor(
                    text=text["truncated"], translations=text["translation"], text_target=text["sentence"]
                ).items()
            }
        assert texts["translation"][:3] == [
            model.translate(t, processor, num_beams=1)[0] for t in texts["truncated"][:3]
        ]

    batch = LastTokenCollator(processor)([splits["train"][i] for i in range(4)])
    assert torch.isfinite(model(**batch).loss)
    learned = [row[row != -100].tolist() for row in batch["labels"]]
    words = load_from_disk(str(tmp_path / "data" / "translations"))["train"]["missing_word"][:4]
    assert [processor.decode_target(row) for row in learned] == words


def test_truncation_at_random_words_leaves_several_words_to_learn(run, composed, tmp_path):
    model, processor = composed("gated")
    settings = dataclasses.replace(SETTINGS, truncation="random_word")
    splits = run(tmp_path / "data", settings=settings)
    texts = load_from_disk(str(tmp_path / "data" / "translations"))
    collator = LastTokenCollator(processor, loss_positions="continuation")
    counts = {"train": set(), "validation": set()}
    for name, rows in splits.items():
        for row, text in zip(rows, texts[name], strict=True):
            labels = collator([row])["labels"][0]
            continuation = processor.decode_target(labels[labels != -100])
            assert f"{text['truncated']} {continuation}" == text["sentence"]
            assert strip_punctuation(continuation.split()[0]) == text["missing_word"]
            assert len(text["truncated"].split()) >= SETTINGS.min_words - 1
            counts[name].add(len(continuation.split()))
    assert counts["validation"] == {1}
    assert {1, 2} < counts["train"]
    assert prepared_truncation(tmp_path / "data") == "random_word"


def test_without_truncation_whole_sentences_are_read_and_learned(run, composed, tmp_path):
    model, processor = composed("gated")
    splits = run(tmp_path / "data", settings=dataclasses.replace(SETTINGS, truncation="none"))
    texts = load_from_disk(str(tmp_path / "data" / "translations"))
    assert texts["train"]["truncated"][:] == texts["train"]["sentence"][:]
    assert set(texts["train"]["missing_word"][:]) == {""}
    assert (
        texts["train"]["translation"][0] == model.translate(texts["train"]["sentence"][0], processor, num_beams=1)[0]
    )
    for row, text in zip(texts["validation"], splits["validation"], strict=True):
        assert row["sentence"].startswith(f"{row['truncated']} {row['missing_word']}")
        assert text["continuation_length"] > 0


def test_counts_and_settings_are_printed_and_saved(run, console, tmp_path):
    splits = run(tmp_path / "data")
    report = json.loads((tmp_path / "data" / "prepare.json").read_text(encoding="utf-8"))
    counts = report["counts"]
    assert counts["read"] == 60 and counts["too_short"] > 0
    assert {name: counts[name] for name in splits} == {name: len(rows) for name, rows in splits.items()}
    assert report["corpus"] == SETTINGS.to_dict()
    assert report["translation"]["generation"] == {"num_beams": 1}
    assert "left out: fewer than 3 words" in console.file.getvalue()


def test_a_rerun_is_a_no_op_that_says_so(run, console, tmp_path, monkeypatch):
    first = run(tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.arrow")}
    monkeypatch.setattr(translation_module, "translation_backend", None)  # whoever translates fails
    again = run(tmp_path / "data")
    assert "is prepared already" in console.file.getvalue()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.arrow")}
    assert {name: rows.to_list() for name, rows in first.items()} == {
        name: rows.to_list() for name, rows in again.items()
    }


def test_a_changed_corpus_replaces_the_rows_and_keeps_the_translations(run, texts, tmp_path):
    run(tmp_path / "data", texts[:40])
    shards = set((tmp_path / "data" / "shards").rglob("*.arrow"))
    splits = run(tmp_path / "data", settings=CorpusSettings(min_words=3, validation_share=0))
    assert set(splits) == {"train"} and not (tmp_path / "data" / "validation").exists()
    assert set((tmp_path / "data" / "shards").rglob("*.arrow")) > shards
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *("train", "translations", "shards", "prepare.json", ".lock")
    }


def test_two_folders_of_the_same_text_agree_to_the_byte(run, tmp_path):
    run(tmp_path / "one")
    run(tmp_path / "other")
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_an_interrupted_replacement_is_noticed_and_mended(run, composed, tmp_path):
    run(tmp_path / "data")
    whole = files(tmp_path / "data")
    (tmp_path / "data" / "prepare.json").unlink()
    shutil.rmtree(tmp_path / "data" / "train")
    (tmp_path / "data" / ".preparing").mkdir()
    (tmp_path / "data" / ".preparing" / "left.arrow").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match=r"no prepare\.json.*run `tall prepare`"):
        load_prepared(tmp_path / "data", *composed("gated"))
    run(tmp_path / "data")
    assert files(tmp_path / "data") == whole


def test_prepared_rows_open_for_their_own_model_only(run, fresh, tmp_path):
    splits = run(tmp_path / "data")
    model, processor = fresh("gated")
    opened = load_prepared(tmp_path / "data", model, processor)
    assert opened["train"].to_list() == splits["train"].to_list()
    processor.llm_tokenizer.add_tokens(["Haifa"])
    with pytest.raises(ValueError, match="rows in .* made by another processor.*Run `tall prepare`"):
        load_prepared(tmp_path / "data", model, processor)
    with torch.no_grad():
        model.encoder.translator.get_input_embeddings().weight[5, 0] += 1
    with pytest.raises(ValueError, match="translations in .* made by another translator .*Run `tall prepare`"):
        load_prepared(tmp_path / "data", model, processor)


def test_a_disk_that_fills_up_behind_the_translations(run, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "save_to_disk", full)
        with pytest.raises(OSError, match="The disk of .*data is full .* run the same command again"):
            run(tmp_path / "data")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"shards", ".lock"}
    monkeypatch.setattr(translation_module, "translation_backend", None)  # whoever translates fails
    assert len(run(tmp_path / "data")["train"]) > 30


@pytest.mark.parametrize("content", ["", "{", "\xff"])
def test_a_damaged_report_is_named(composed, tmp_path, content):
    (tmp_path / "prepare.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"{tmp_path}/prepare.json is damaged .* run what wrote it again"):
        load_prepared(tmp_path, *composed("gated"))


def test_bad_outputs(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(FileExistsError, match="holds no rows of `tall prepare`"):
        run(tmp_path / "full")
    (tmp_path / "full" / ".lock").touch()  # as any command of this package leaves it
    with pytest.raises(FileExistsError):
        run(tmp_path / "full")
    with pytest.raises(ValueError, match="none is left"):
        run(tmp_path / "bad", ["שלום"])
    assert not list((tmp_path / "bad").glob("[!.]*")) and not (tmp_path / "bad" / ".preparing").exists()
    with (
        FileLock(tmp_path / "bad" / ".lock"),
        pytest.raises(BlockingIOError, match=r"Another process \(pid \d+\) is at work"),
    ):
        run(tmp_path / "bad")
    assert len(run(tmp_path / "bad")["train"]) > 30


def test_the_command(composed, texts, tmp_path):
    model = publishing.save(*composed("gated"), tmp_path / "model")
    table = tmp_path / "text.tsv"
    table.write_text("\n".join(["id\the", *(f"{i}\t{text}" for i, text in enumerate(texts))]), encoding="utf-8")
    command = ["prepare", str(table), "--model", str(model), "--output", str(tmp_path / "data"), "--min-words", "3"]
    command += ["--validation-share", "0.2", "--num-beams", "1"]
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 1 and "no column 'text'; the columns are 'id', 'he'" in failed.output
    for expected in ("left out: duplicates", "is prepared already"):
        done = CliRunner().invoke(app, [*command, "--column", "he"])
        assert done.exit_code == 0 and expected in done.output, done.output
    assert len(load_prepared(tmp_path / "data", *composed("gated"))["train"]) > 30
    assert "Example: tall prepare" in " ".join(CliRunner().invoke(app, ["prepare", "--help"]).output.split())
