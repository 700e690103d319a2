"""Files that are written whole or not at all."""

import os

import pytest

from tall_hf.files import atomic_write, is_plain_name, remove_unfinished


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text("old")
    with atomic_write(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["answers.json"]


def test_an_interruption_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as aside:
        aside.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["answers.json"]


def test_what_does_not_reach_the_disk_does_not_appear(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "answers.json") as aside:
        aside.write_text("new")
    assert names(tmp_path) == []


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    with atomic_write(tmp_path / "kept.json") as aside:
        aside.write_text("{}")
    (tmp_path / "shards").mkdir()
    for folder in (tmp_path, tmp_path / "shards"):
        folder.joinpath(aside.name).write_text("half")  # as a kill in the middle leaves it
    (tmp_path / "mine.unfinished").write_text("not hidden, so not ours")
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["kept.json", "mine.unfinished", "shards"]


def test_a_plain_name_leads_out_of_no_folder():
    assert all(map(is_plain_name, ("tall", "he_IL", "width_2.5e-4", "גלוי", "_1", "zh-Hant")))
    assert not any(map(is_plain_name, ("", ".", "..", ".hidden", "-rf", "a/b", "a\\b", "a b", "a\n", "a:b")))
