"""Which rate each trained part of a TALL learns at, and the plot of what the source fusion has learned."""

import pytest
import torch

from tall_hf import TALLTrainer
from tall_hf.training.layer_weights import source_layer_weights
from tall_hf.training.light import trainable_names


def test_learning_rates_and_no_frozen_parameter_in_the_optimizer(trainer):
    made = trainer(learning_rate=1e-3, alignment_learning_rate=1e-2, gate_learning_rate=5e-3, weight_decay=0.1)
    made.create_optimizer()
    names = {id(parameter): name for name, parameter in made.model.named_parameters()}
    rates, decays = {}, {}
    for group in made.optimizer.param_groups:
        for parameter in group["params"]:
            rates[names[id(parameter)]], decays[names[id(parameter)]] = group["lr"], group["weight_decay"]
    assert rates.keys() == trainable_names(made.model)
    for name, rate in rates.items():
        assert rate == (1e-2 if "_alignment." in name else 5e-3 if name == "encoder.gate" else 1e-3), name
    assert (
        decays["encoder.source_alignment.up_proj.weight"]
        == decays["encoder.source_decoder.layers.0.fc1.weight"]
        == 0.1
    )
    assert (
        decays["encoder.source_alignment.up_proj.bias"] == decays["encoder.target_alignment.hidden_norm.weight"] == 0
    )


@pytest.mark.parametrize("fusion", ["global_softmax", "token_softmax"])
def test_a_source_fusion_has_a_rate_of_its_own_and_a_plot(trainer, fusion, tmp_path):
    made = trainer(source_fusion=fusion, learning_rate=0.0, fusion_learning_rate=1e-3, weight_decay=0.1, eval_rows=5)
    made.model.encoder.source_fusion.reset_parameters()
    before = {name: parameter.clone() for name, parameter in made.model.named_parameters()}
    made.train()
    changed = {name for name, value in made.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("encoder.source_fusion.") for name in changed)
    for group in made.optimizer.param_groups:
        if any(parameter is value for parameter in group["params"] for value in _logits(made.model)):
            assert (group["initial_lr"], group["weight_decay"]) == (1e-3, 0.0)
    assert (tmp_path / "out" / "source_fusion.png").read_bytes().startswith(b"\x89PNG")

    read = made.model.encoder.translator.get_encoder(), made.model.encoder.source_fusion, made.eval_dataset
    weights = source_layer_weights(*read)
    assert sum(weight.mean for weight in weights) == pytest.approx(1)
    assert all((weight.std > 1e-4) == (fusion == "token_softmax") for weight in weights)
    # Padding counts for nothing: rows read one at a time give the same.
    alone = source_layer_weights(*read, batch_size=1)
    assert [one.mean for one in alone] == pytest.approx([weight.mean for weight in weights], rel=1e-4)
    with pytest.raises(ValueError, match="no rows"):
        source_layer_weights(*read[:2], [])


def _logits(model):
    fusion = model.encoder.source_fusion
    return [getattr(fusion, name) for name in ("layer_logits", "temperature") if hasattr(fusion, name)]


def test_schedule_keeps_both_rates_apart(trainer):
    made = trainer(learning_rate=1e-3, alignment_learning_rate=1e-2, warmup_steps=2)
    made.create_optimizer_and_scheduler(num_training_steps=4)
    peak = []
    for _ in range(2):
        made.optimizer.step()
        made.lr_scheduler.step()
        peak = [group["lr"] for group in made.optimizer.param_groups]
    assert sorted(set(peak)) == pytest.approx([1e-3, 1e-2])


@pytest.mark.parametrize(("settings", "rate"), [({}, 3e-5), ({"fusion_learning_rate": None}, 1e-3)])
def test_a_high_learning_rate_is_not_the_fusions(trainer, settings, rate):
    made = trainer(source_fusion="global_softmax", learning_rate=1e-3, **settings)
    made.create_optimizer()
    fused = _logits(made.model)
    groups = {id(parameter): group["lr"] for group in made.optimizer.param_groups for parameter in group["params"]}
    assert len(fused) == 2 and {groups[id(parameter)] for parameter in fused} == {rate}


def test_a_rate_of_lora_without_lora_is_refused(fresh, arguments):
    model, processor = fresh("gated")
    with pytest.raises(ValueError, match="`lora_learning_rate` has nothing to train.*tall_hf.training.lora.add_lora"):
        TALLTrainer(model, arguments(lora_learning_rate=1e-4), processing_class=processor)
