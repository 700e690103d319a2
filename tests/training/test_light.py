"""Light checkpoints: small, equal to the whole model when loaded, and refused anywhere else."""

import json
import shutil

import pytest
import torch
from batches import batch, random_rows
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tall_hf import TALLForCausalLM, compose, load_light
from tall_hf.training.light import (
    PINS_NAME,
    cast_adapters,
    cast_frozen,
    frozen_fingerprint,
    save_light,
    trainable_names,
)
from tall_hf.training.lora import add_lora


@pytest.fixture
def saved(fresh, tmp_path):
    """A model, its processor, and its light checkpoint."""
    model, processor = fresh("gated")
    return model, processor, save_light(model, processor, tmp_path / "light")


def expected_names(model):
    """What is trained, and the constants of the adapters."""
    constants = (
        "encoder.embedding_std",
        "encoder.source_decoder.embed_positions",
        "encoder.target_encoder.embed_positions",
    )
    return trainable_names(model) | {name for name in model.state_dict() if name.startswith(constants)}


def test_holds_the_adapters_only(saved, tmp_path):
    model, _, folder = saved
    assert load_file(folder / "model.safetensors").keys() == expected_names(model)
    model.save_pretrained(tmp_path / "whole")
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "whole")]
    adapters = sum(value.numel() for name, value in model.state_dict().items() if name in expected_names(model))
    assert sizes[0] < 4 * adapters + 20_000 < sizes[1]
    assert model.config.trainable_only is False
    assert TALLForCausalLM.from_pretrained(tmp_path / "whole").config.trainable_only is False


@pytest.mark.parametrize("from_base", [False, True])
@pytest.mark.parametrize("frozen_dtype", [torch.float32, torch.bfloat16])
def test_load_light_equals_the_whole(fresh, bridge, from_base, frozen_dtype, tmp_path):
    model, processor = fresh(bridge)
    base = tmp_path / "base"
    model.save_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    cast_frozen(model, frozen_dtype)
    folder = save_light(model, processor, tmp_path / "light")
    loaded, loaded_processor = load_light(folder, base=base if from_base else None)
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)
    assert trainable_names(loaded) == trainable_names(model)
    assert not loaded.training
    assert loaded_processor.source_tokenizer.get_vocab() == processor.source_tokenizer.get_vocab()


@pytest.mark.parametrize("translator", ["nllb", "m2m_100", "mbart50"])
def test_translators_of_many_languages_are_composed_again(fresh, translator, tmp_path):
    model, processor = fresh("marian", translator)
    loaded, loaded_processor = load_light(save_light(model, processor, tmp_path / "light"))
    assert loaded_processor.source_lang == processor.source_lang
    assert frozen_fingerprint(loaded) == frozen_fingerprint(model)


def test_a_tall_from_before_it_had_to_be_told_what_it_reads_is_composed_again(part_folders, tmp_path):
    folders = {**part_folders("nllb"), "hr_lr": part_folders()["hr_lr"]}
    model, processor = compose(**folders)
    processor.source_lang = None
    loaded, loaded_processor = load_light(save_light(model, processor, tmp_path / "light"))
    assert loaded_processor.source_lang is None
    assert frozen_fingerprint(loaded) == frozen_fingerprint(model)


def test_adapters_may_have_a_longer_dtype_than_the_model_was_composed_in(part_folders, tmp_path):
    model, processor = compose(**part_folders(), source_bridge="gated", dtype="bfloat16")
    cast_adapters(model, torch.float32)
    loaded, _ = load_light(save_light(model, processor, tmp_path / "light"))
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert {value.dtype for value in ours.values()} == {torch.float32, torch.bfloat16}
    assert all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)


def test_with_lora(fresh, tmp_path):
    pytest.importorskip("peft")
    model, processor = fresh("gated")
    fingerprint = frozen_fingerprint(model)
    add_lora(model, r=2, alpha=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    assert frozen_fingerprint(model) == fingerprint
    loaded, _ = load_light(save_light(model, processor, tmp_path / "light"))
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert trainable_names(loaded) == trainable_names(model)


def test_loaded_light_saves_whole(saved, tmp_path):
    model, processor, folder = saved
    loaded, _ = load_light(folder)
    loaded.save_pretrained(tmp_path / "whole")
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        again = TALLForCausalLM.from_pretrained(tmp_path / "whole")(**inputs).logits
        assert torch.equal(again, model(**inputs).logits)


@pytest.mark.parametrize(
    "load",
    [
        TALLForCausalLM.from_pretrained,
        AutoModelForSeq2SeqLM.from_pretrained,
        lambda folder: AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True),
    ],
)
def test_any_other_loading_is_refused_and_names_the_call(saved, load):
    with pytest.raises(ValueError, match=r"tall_hf\.load_light\(folder\)"):
        load(saved[2])


def test_other_frozen_weights_are_refused(saved, part, part_folders, tmp_path):
    _, _, folder = saved
    other, _ = compose(**{**part_folders(), "llm": part("qwen2", 7)}, source_bridge="gated")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="frozen weights are not those.*sha256:.*qwen2"):
        load_light(folder, base=tmp_path / "other")


def test_one_changed_bit_of_a_frozen_part_is_refused(fresh, saved, tmp_path):
    model, _ = fresh("gated")
    with torch.no_grad():
        model.decoder.layers[0].fc1.bias[0] += 1e-6
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="frozen weights are not those"):
        load_light(saved[2], base=tmp_path / "other")


def test_a_replaced_part_is_refused(part, part_folders, tmp_path):
    llm = shutil.copytree(part("qwen2"), tmp_path / "llm")
    model, processor = compose(**{**part_folders(), "llm": llm})
    folder = save_light(model, processor, tmp_path / "light")
    load_light(folder)
    shutil.rmtree(llm)
    with pytest.raises(OSError, match="llm"):
        load_light(folder)
    shutil.copytree(part("qwen2", 7), llm)
    with pytest.raises(ValueError, match="frozen weights are not those"):
        load_light(folder)


def test_other_switches_are_named(fresh, saved, tmp_path):
    fresh("concat")[0].save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="source_bridge 'concat' instead of 'gated'"):
        load_light(saved[2], base=tmp_path / "other")


def test_what_is_no_light_checkpoint_is_refused(saved, tmp_path):
    model, _, folder = saved
    model.save_pretrained(tmp_path / "whole")
    with pytest.raises(FileNotFoundError, match="frozen_parts.json.*from_pretrained"):
        load_light(tmp_path / "whole")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        load_light(folder)


def test_missing_weights_are_named(saved, tmp_path):
    from safetensors.torch import save_file

    _, _, folder = saved
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.gate"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="misses encoder.gate"):
        load_light(folder)


def test_an_interrupted_save_leaves_what_was_there(fresh, tmp_path, monkeypatch):
    model, processor = fresh("gated")
    expected = model.state_dict()["encoder.gate"].clone()

    def full(folder):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(processor, "save_pretrained", full)
        save_light(model, processor, tmp_path / "light")
    assert list(tmp_path.iterdir()) == []
    folder = save_light(model, processor, tmp_path / "light")
    with torch.no_grad():
        model.encoder.gate += 1.0
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(processor, "save_pretrained", full)
        save_light(model, processor, folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert torch.equal(load_light(folder)[0].encoder.gate, expected)
    assert torch.equal(load_light(save_light(model, processor, folder))[0].encoder.gate, expected + 1.0)
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"also notes\.txt"):
        save_light(model, processor, folder)


def test_checkpoints_of_a_training(trainer, tmp_path):
    made = trainer(save_strategy="steps", save_steps=4)
    made.train()
    checkpoint = tmp_path / "out" / "checkpoint-4"
    assert json.loads((checkpoint / "config.json").read_text())["trainable_only"] is True
    assert load_file(checkpoint / "model.safetensors").keys() == expected_names(made.model)
    loaded, _ = load_light(checkpoint)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in made.model.state_dict().items())
    made.save_model(str(tmp_path / "final"))
    final = TALLForCausalLM.from_pretrained(tmp_path / "final")
    assert all(torch.equal(value, final.state_dict()[name]) for name, value in made.model.state_dict().items())


@pytest.mark.parametrize("light_checkpoints", [True, False])
def test_a_training_writes_no_token(trainer, tmp_path, light_checkpoints):
    token = "hf_canaryCANARYcanary"
    made = trainer(save_strategy="steps", save_steps=4, light_checkpoints=light_checkpoints, hub_token=token)
    made.train()
    made.save_model(str(tmp_path / "final"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "training_args.bin" in {path.name for path in written}
    assert not [path for path in written if token.encode() in path.read_bytes()]
    assert made.args.hub_token == token


def test_whole_checkpoints_on_request(trainer, tmp_path):
    made = trainer(save_strategy="steps", save_steps=4, light_checkpoints=False)
    made.train()
    loaded = TALLForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-4")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in made.model.state_dict().items())


def test_resume_on_other_frozen_weights_is_refused(trainer, fresh):
    trainer(save_strategy="steps", save_steps=2).train()
    model, _ = fresh("gated")
    with torch.no_grad():
        model.encoder.llm.get_input_embeddings().weight[0, 0] += 1.0
    for allowed in (False, True):
        with pytest.raises(ValueError, match="frozen"):
            trainer(model=model, allow_changed_settings=allowed).train(resume_from_checkpoint=True)


def test_parts_of_unknown_origin_need_a_base(fresh, tmp_path):
    model, processor = fresh("gated")
    for part in model.config.components.values():
        part["name_or_path"] = None  # as publishing leaves of a folder
    model.save_pretrained(tmp_path / "whole")
    folder = save_light(model, processor, tmp_path / "light")
    with pytest.raises(ValueError, match="does not say where its part 'lr_hr' came from; give the model .* as `base`"):
        load_light(folder)
    loaded, _ = load_light(folder, base=tmp_path / "whole")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="origin unknown"):
        load_light(folder, base=tmp_path / "other")


@pytest.mark.parametrize(
    "pins",
    [
        "{",
        "[]",
        "3",
        "{}",
        {"fingerprint": 3},
        {"dtype": "abc"},
        {"dtype": None},
        {"frozen_dtype": ["float32"]},
        {"components": [1]},
        {"components": {"llm": "x"}},
        {"components": {"llm": {"name_or_path": 3}}},
        {"components": {"llm": {"name_or_path": "a/b", "revision": 3}}},
        {"unfrozen": "x"},
        {"unfrozen": [3]},
    ],
    ids=str,
)
def test_damaged_pins_are_refused_by_their_name(composed, tmp_path, pins):
    folder = save_light(*composed("gated"), tmp_path / "light")
    path = folder / PINS_NAME
    if isinstance(pins, dict):
        pins = json.dumps({**json.loads(path.read_text(encoding="utf-8")), **pins})
    path.write_text(pins, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{PINS_NAME} of .*light is damaged"):
        load_light(folder)
