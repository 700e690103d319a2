"""A TALL that was trained on the little world, in bfloat16: what it knows survives the rounding."""

import dataclasses

import pytest
import torch
from transformers import set_seed

from tall_hf import compose
from tall_hf.microworld import World, component_path
from tall_hf.microworld.demo import Recipe, accuracy, predict_words, train_adapters, training_rows


@pytest.mark.slow
def test_a_trained_tall_answers_in_bfloat16_as_in_float32():
    recipe = dataclasses.replace(Recipe(), steps=300, batch_size=32)
    set_seed(0)
    model, processor = compose(
        *map(component_path, ("lr_hr", "llm", "hr_lr")),
        source_bridge="gated",
        gate_init=recipe.gate_init,
        warm_start=recipe.warm_start,
    )
    train, held_out = ([r for r in part if r.relation in ("city", "car")] for part in World().records())
    # The translator is exact on these sentences (test_embedded_components.py), so its work need not be repeated.
    rows = training_rows(processor, train, [record.english_truncated for record in train])
    train_adapters(model, processor, rows, recipe)
    texts, translations = zip(*((record.truncated, record.english_truncated) for record in held_out), strict=True)
    words = predict_words(model, processor, texts, translations)
    assert accuracy(held_out, words)["all"] > 0.9
    rounded = predict_words(model.to(torch.bfloat16), processor, texts, translations)
    assert sum(ours == theirs for ours, theirs in zip(rounded, words, strict=True)) > 0.98 * len(words)
