"""Saving a TALL whole, and what it may replace."""

from pathlib import Path

import pytest

from tall_hf import TALLForCausalLM, publishing
from tall_hf.training.lora import add_lora, merge_lora


def test_a_saved_tall_is_replaced_and_nothing_else(fresh, tmp_path):
    model, processor = fresh("gated")
    folder = tmp_path / "deep" / "tall"
    publishing.save(model, processor, folder)
    publishing.save(model, processor, folder)
    assert TALLForCausalLM.from_pretrained(folder).config.source_bridge == "gated"
    assert [path.name for path in folder.parent.iterdir()] == ["tall"]

    # What a tokenizer with a chat template leaves is the model's own.
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    publishing.save(model, processor, folder)
    assert not (folder / "chat_template.jinja").exists()

    (folder / "notes.txt").write_text("precious")
    (folder / ".git").mkdir()
    with pytest.raises(FileExistsError, match=r"also \.git, notes\.txt"):
        publishing.save(model, processor, folder)
    assert (folder / "notes.txt").read_text() == "precious"


def test_another_folder_is_refused(fresh, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="no saved model"):
        publishing.check_output(tmp_path)
    (tmp_path / "letters.txt").unlink()
    assert publishing.check_output(tmp_path) == tmp_path
    for unnamed in (".", "..", "/"):
        with pytest.raises(ValueError, match="is no name of a folder to save to; name one, such as"):
            publishing.check_output(unnamed)


def test_an_interrupted_save_leaves_the_old_one(fresh, tmp_path, monkeypatch):
    model, processor = fresh("gated")
    folder = publishing.save(model, processor, tmp_path / "tall")
    monkeypatch.setattr(processor, "save_pretrained", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        publishing.save(model, processor, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["tall"]
    assert TALLForCausalLM.from_pretrained(folder).config.source_bridge == "gated"


@pytest.mark.parametrize("nth", [1, 2])
def test_an_interrupt_while_folders_change_places_leaves_the_old_one(fresh, tmp_path, monkeypatch, nth):
    model, processor = fresh("gated")
    folder = publishing.save(model, processor, tmp_path / "tall")
    renames, rename = [], Path.rename

    def interrupted(path, target):
        renames.append(path)
        if len(renames) == nth:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        # Files are renamed too, while the new one is made.
        patch.setattr(Path, "rename", lambda path, to: interrupted(path, to) if path.is_dir() else rename(path, to))
        publishing.save(model, processor, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["tall"]
    assert TALLForCausalLM.from_pretrained(folder).config.source_bridge == "gated"


def test_what_a_killed_save_left_is_taken_back_and_removed(fresh, tmp_path, monkeypatch):
    model, processor = fresh("gated")
    folder = publishing.save(model, processor, tmp_path / "tall")
    aside = tmp_path / ".tall.saving"
    (aside / "new").mkdir(parents=True)
    (aside / "new" / "config.json").write_text("{")
    folder.rename(aside / "old")  # killed between the renames
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(processor, "save_pretrained", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
        publishing.save(model, processor, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["tall"]
    assert TALLForCausalLM.from_pretrained(folder).config.source_bridge == "gated"


def test_lora_is_merged_first(fresh, tmp_path):
    pytest.importorskip("peft")
    model, processor = fresh("gated")
    add_lora(model)
    with pytest.raises(ValueError, match="merge it first"):
        publishing.save(model, processor, tmp_path / "tall")
    assert not (tmp_path / "tall").exists()
    publishing.save(merge_lora(model), processor, tmp_path / "tall")
