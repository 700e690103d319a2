"""Checkpoints that were saved long ago load in every public way and answer as they did; what is saved today has their form."""

import json

import checkpoints
import pytest
from questions import ask
from safetensors import safe_open


@pytest.mark.parametrize("form", checkpoints.FORMS)
def test_old_checkpoints_answer_as_they_did(form):
    answered = ask(*checkpoints.load(checkpoints.SAVED, form))
    assert checkpoints.check(checkpoints.SAVED, form, answered) == []


def test_old_checkpoints_answer_as_they_did_by_the_auto_classes():
    for name, answered in checkpoints.ask_remote(checkpoints.SAVED).items():
        assert checkpoints.check(checkpoints.SAVED, name, answered) == []


def test_a_changed_weight_would_be_noticed():
    model, processor = checkpoints.load(checkpoints.SAVED, "tall")
    model.encoder.gate.data.add_(0.05)
    [line, *_] = checkpoints.check(checkpoints.SAVED, "tall", ask(model, processor))
    assert line.startswith("logits is")


def weights(folder):
    """{(form, tensor): (dtype, shape)} of every checkpoint."""
    found = {}
    for form in checkpoints.FORMS:
        with safe_open(folder / form / "model.safetensors", "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                part = file.get_slice(name)
                found[form, name] = part.get_dtype(), part.get_shape()
    return found


def test_what_is_saved_today_has_the_form_of_old(tmp_path):
    """So that versions before this one read it."""
    checkpoints.write(tmp_path / "today")
    assert weights(tmp_path / "today") == weights(checkpoints.SAVED)
    for form in checkpoints.FORMS:
        ours, old = (
            json.loads((folder / form / "config.json").read_text(encoding="utf-8"))
            for folder in (tmp_path / "today", checkpoints.SAVED)
        )
        # The parts' settings are transformers', and come and go with its versions.
        own = checkpoints.CLASSES[form.removesuffix("_light")][0].config_class.__annotations__
        # A field that was not there then has a default, or the old ones would not load.
        own = [name for name in own if name in old and not name.endswith("_config")]
        assert len(own) > 10
        assert {name: ours.get(name) for name in own} == {name: old[name] for name in own}


def test_nothing_is_pickled_and_all_of_it_is_small():
    paths = [path for path in checkpoints.SAVED.rglob("*") if path.is_file()]
    assert {path.suffix for path in paths} == {".json", ".safetensors", ".spm"}
    assert sum(path.stat().st_size for path in paths) < 300_000
    for path in paths:
        if path.suffix == ".json":
            assert "/tmp" not in path.read_text(encoding="utf-8"), path
