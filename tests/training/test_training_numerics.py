"""A training is a function of its seed, bit for bit on a CPU, and stays finite over hundreds of steps."""

import math

import pytest
import torch
from datasets import Dataset
from parts import SENTENCES, TRANSLATIONS

from tall_hf import LayerFusionTrainer, LayerFusionTrainingArguments, compose_layer_fusion


def weights_after(made):
    made.train()
    return {name: weight.clone() for name, weight in made.model.state_dict().items()}


def assert_function_of_the_seed(train):
    """`train(seed)` gives the weights of a whole training with dropout."""
    first, again, other = train(7), train(7), train(8)
    assert first.keys() == again.keys()
    for name, weight in first.items():
        assert torch.equal(weight, again[name]), name
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


@pytest.mark.parametrize("bf16", [False, True])
def test_the_same_seed_trains_the_same_bits(trainer, bf16):
    assert_function_of_the_seed(
        lambda seed: weights_after(trainer(dropout=True, seed=seed, bf16=bf16, gradient_accumulation_steps=2))
    )


def fusion_trainer(part, folder, rows=8, **settings):
    """A LayerFusionTrainer of a fresh tiny model."""
    folders = part("nllb"), part("llama")  # written at their first use, which draws random numbers
    torch.manual_seed(0)
    model, processor = compose_layer_fusion(*folders, source_lang="heb_Hebr")
    encoded = processor(text=SENTENCES * 2, prompt="It is", text_target=TRANSLATIONS * 2)
    common = {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_steps": 1}
    quiet = {"eval_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    return LayerFusionTrainer(
        model=model,
        args=LayerFusionTrainingArguments(output_dir=str(folder), **{**common, **quiet, **settings}),
        train_dataset=Dataset.from_dict(dict(encoded)).select(range(rows)),
        processing_class=processor,
    )


def test_the_same_seed_trains_the_same_bits_in_layer_fusion(part, tmp_path):
    assert_function_of_the_seed(
        lambda seed: weights_after(fusion_trainer(part, tmp_path / "out", max_steps=4, seed=seed))
    )


def check_long(made):
    weights = weights_after(made)
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert len(losses) == made.args.max_steps
    assert all(map(math.isfinite, losses))
    assert all(weight.isfinite().all() for weight in weights.values())
    tenth = len(losses) // 10
    assert sum(losses[-tenth:]) < 0.9 * sum(losses[:tenth])  # of random sentences there is little to learn


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "autocast", "frozen parts in bfloat16"])
def test_hundreds_of_steps_stay_finite(trainer, precision):
    settings = {"autocast": {"bf16": True}, "frozen parts in bfloat16": {"frozen_dtype": "bfloat16"}}
    check_long(trainer(rows=64, dropout=True, max_steps=300, learning_rate=3e-3, **settings.get(precision, {})))


@pytest.mark.slow
def test_hundreds_of_steps_of_layer_fusion_stay_finite(part, tmp_path):
    check_long(fusion_trainer(part, tmp_path / "out", rows=10, max_steps=300))
