"""Partial unfreezing: what is named trains, nothing else does, and every way of saving keeps it."""

import json
from pathlib import Path

import pytest
import torch
from batches import batch, random_rows

from tall_hf import TALLForCausalLM, load_light
from tall_hf.training.checkpoints import last_checkpoint
from tall_hf.training.light import PINS_NAME, cast_frozen, save_light, trainable_names
from tall_hf.training.lora import add_lora
from tall_hf.training.unfreezing import unfreeze


NAMES = ["decoder.layers.-1", "llm.layers.0.mlp"]
SETTINGS = {"unfreeze": NAMES, "save_strategy": "steps", "save_steps": 4}


def inside(model):
    """Trainable parameters of the pretrained parts."""
    return {name for name in trainable_names(model) if name.startswith(model.frozen_prefixes)}


def test_what_is_named_trains_at_its_own_rate_and_nothing_else(trainer):
    made = trainer(learning_rate=0.0, unfreeze_learning_rate=1e-3, **SETTINGS)
    last = len(made.model.decoder.layers) - 1
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.train()
    changed = {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith((f"decoder.layers.{last}.", "encoder.llm.layers.0.mlp.")) for name in changed)
    assert changed <= inside(made.model)
    assert not made.model.decoder.training


def test_a_light_checkpoint_holds_and_gives_back_what_was_trained(trainer, tmp_path):
    made = trainer(**SETTINGS)
    made.train()
    checkpoint = last_checkpoint(made.args.output_dir)
    pins = json.loads(Path(checkpoint, "frozen_parts.json").read_text())
    assert set(pins["unfrozen"]) == inside(made.model)
    loaded, _ = load_light(checkpoint)
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    loaded.save_pretrained(tmp_path / "whole")
    whole = TALLForCausalLM.from_pretrained(tmp_path / "whole")
    assert whole.config.components["hr_lr"]["unfrozen"] == ["decoder.layers.-1"]
    assert whole.config.components["llm"]["unfrozen"] == ["llm.layers.0.mlp"]
    assert not inside(whole)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_fixed_positions_stay_fixed(fresh):
    model, _ = fresh("gated")
    unfreeze(model, ["decoder"])
    assert "decoder.layers.0.fc1.weight" in inside(model)
    assert "decoder.embed_positions.weight" not in inside(model)


def test_layers_in_another_dtype_need_mixed_precision(trainer):
    with pytest.raises(ValueError, match="only mixed precision joins"):
        trainer(unfreeze=["decoder.layers.0"], frozen_dtype="bfloat16")
    made = trainer(unfreeze=["decoder.layers.0"], frozen_dtype="bfloat16", bf16=True)
    assert {made.model.get_parameter(name).dtype for name in inside(made.model)} == {torch.float32}
    made.train()


@pytest.mark.parametrize("from_base", [False, True])
@pytest.mark.parametrize(
    "names",
    [["decoder"], ["lm_head"], ["decoder.layers"], ["decoder.layers.-1"], ["llm.layers.0"], ["llm", "decoder"]],
    ids=str,
)
def test_a_light_checkpoint_between_shorter_frozen_parts_loads_and_runs(fresh, names, from_base, tmp_path):
    model, processor = fresh("gated")
    model.save_pretrained(tmp_path / "base")
    unfreeze(model, names)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    cast_frozen(model, torch.bfloat16)
    folder = save_light(model, processor, tmp_path / "light")
    assert json.loads((folder / PINS_NAME).read_text())["frozen_dtype"] == "bfloat16"
    loaded, _ = load_light(folder, base=tmp_path / "base" if from_base else None)
    cast_frozen(model, torch.float32)  # exact, and what the layers that learned compute in
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model.eval()(**inputs).logits)
    assert trainable_names(loaded) == trainable_names(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layers.-1", "begin with llm, decoder, lm_head, got 'layers.-1'"),
        ("decoder.layers.9", "decoder.layers has no '9'; it has 0, 1"),
        ("decoder.layers.²", "decoder.layers has no '²'; it has 0, 1"),
        ("llm.h.0", "llm has no 'h'; it has embed_tokens, layers, norm"),
        ("llm.rotary_emb", "no weights to train"),
        ("source_encoder.layers.-1", "a part of the translator that has translated the rows"),
    ],
)
def test_names_that_lead_nowhere_are_refused(composed, name, message):
    model, _ = composed("gated")
    with pytest.raises(ValueError, match=message):
        unfreeze(model, [name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"rows": 0}, "`train_dataset` is empty"), ({"metric_for_best_model": "bleu"}, "must be one of 'loss'")],
)
def test_what_is_refused_leaves_the_model_as_it_was(trainer, fresh, wrong, message):
    model, _ = fresh("gated")
    with pytest.raises(ValueError, match=message):
        trainer(model=model, unfreeze=NAMES, frozen_dtype="bfloat16", bf16=True, **wrong)
    assert not inside(model)
    assert model.decoder.layers[0].fc1.weight.dtype == torch.float32


def test_lora_and_unfreezing_exclude_each_other(fresh):
    model, _ = fresh("gated")
    with pytest.raises(ValueError, match="unfrozen or have LoRA, not both"):
        unfreeze(add_lora(model, r=2), ["decoder.layers.0"])


@pytest.mark.parametrize("wrong", ["decoder.layers.0", [5], [["decoder"]]])
def test_what_is_no_list_of_names_is_refused(arguments, wrong):
    with pytest.raises(ValueError, match="`unfreeze` must be a list of modules' names"):
        arguments(unfreeze=wrong)


def test_a_rate_without_layers_is_refused(arguments):
    with pytest.raises(ValueError, match="nothing to train: set `unfreeze`"):
        arguments(unfreeze_learning_rate=1e-4)
