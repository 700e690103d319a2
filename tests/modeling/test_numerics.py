"""What a smaller dtype or another device changes in the answers: little, within stated bounds, and never silently."""

import copy

import pytest
import torch
from batches import batch, random_rows
from parts import SENTENCES, TRANSLATIONS

from tall_hf.training.light import cast_frozen


# How far logits may lie from those in float32: the length of the difference over the length of the logits.
BOUNDS = {torch.bfloat16: 0.05, torch.float16: 0.01}
# How far a probability may lie from that in float32.
PROBABILITY = {torch.bfloat16: 0.05, torch.float16: 0.01}
LABELS = ["Dana", "Hello world", "Ruth"]
needs_accelerator = pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")


def relative_distance(found, expected):
    return ((found.float() - expected).norm() / expected.norm()).item()


def check_choices(found, expected, bound):
    """Every probability is within the bound, and the first choice is the same unless two were closer than that."""
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = dict(ours), dict(theirs)
        best, second = sorted(theirs.values(), reverse=True)[:2]
        if best - second > 2 * bound:
            assert max(ours, key=ours.get) == max(theirs, key=theirs.get)
        for choice in ours.keys() & theirs.keys():
            assert ours[choice] == pytest.approx(theirs[choice], abs=bound)


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs).logits[inputs["decoder_attention_mask"].bool()]


@pytest.mark.parametrize("dtype", BOUNDS)
def test_logits_in_half_precision_are_within_bounds(fresh, bridge, dtype):
    model, processor = fresh(bridge)
    inputs = batch(random_rows(model, processor))
    expected = logits_of(model, inputs)
    assert 0 < relative_distance(logits_of(model.to(dtype), inputs), expected) < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", BOUNDS)
def test_next_words_in_half_precision_are_those_of_float32(fresh, dtype):
    model, processor = fresh()
    settings = {"top_k": 5, "translations": TRANSLATIONS}
    expected = model.next_words(SENTENCES, processor, **settings)
    check_choices(model.to(dtype).next_words(SENTENCES, processor, **settings), expected, PROBABILITY[dtype])


def test_frozen_parts_alone_in_bfloat16_stay_within_the_same_bounds(fresh, bridge):
    model, processor = fresh(bridge)
    inputs = batch(random_rows(model, processor))
    expected = logits_of(model, inputs)
    cast_frozen(model, torch.bfloat16)
    assert 0 < relative_distance(logits_of(model, inputs), expected) < BOUNDS[torch.bfloat16]


@pytest.mark.parametrize("dtype", BOUNDS)
@torch.no_grad()
def test_layer_fusion_in_half_precision_is_within_bounds(fused, dtype):
    model, processor = copy.deepcopy(fused())
    inputs = processor(text=SENTENCES, prompt="Who", return_tensors="pt")
    expected = model(**inputs).logits[:, -1]
    choices = model.classify(SENTENCES, processor, LABELS, prompt="Who")
    model.to(dtype)
    assert 0 < relative_distance(model(**inputs).logits[:, -1], expected) < BOUNDS[dtype]
    check_choices(model.classify(SENTENCES, processor, LABELS, prompt="Who"), choices, PROBABILITY[dtype])


# --- overflow --------------------------------------------------------------------------------------------------------


def overload(module):
    """Make a layer's output too large for float16, by weights that are not."""
    with torch.no_grad():
        module.weight.mul_(3e4 / module.weight.abs().max())
        if module.bias is not None:
            module.bias.add_(4e4)


@pytest.mark.parametrize(
    "layer",
    [
        "encoder.translator.model.encoder.layers.0.fc2",
        "encoder.llm.layers.0.mlp.down_proj",
        "decoder.layers.0.fc2",
        "lm_head",
    ],
)
def test_an_overflow_in_float16_is_an_error_and_no_answer(fresh, layer):
    model, processor = fresh()
    inputs = batch(random_rows(model, processor))
    if layer == "lm_head":
        model.final_logits_bias.fill_(0)
    overload(model.get_submodule(layer))
    assert logits_of(model, inputs).isfinite().all()
    assert logits_of(model.to(torch.bfloat16), inputs).isfinite().all()
    model.to(torch.float16)
    assert all(weight.isfinite().all() for weight in model.parameters())
    for answer in (
        lambda: model(**inputs),
        lambda: model.generate(**inputs, do_sample=False, max_new_tokens=2),
        lambda: model.next_words(SENTENCES, processor, translations=TRANSLATIONS),
        lambda: model.complete(SENTENCES, processor, max_words=1, translations=TRANSLATIONS),
    ):
        with pytest.raises(FloatingPointError, match=r"overflowed in float16.*dtype=torch\.bfloat16"):
            answer()


def test_an_overflow_of_a_layer_fusion_is_an_error_too(fused):
    model, processor = copy.deepcopy(fused())
    overload(model.llm.get_submodule("model.layers.0.mlp.down_proj"))
    inputs = processor(text=SENTENCES, prompt="Who", return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()
    model.to(torch.float16)
    for answer in (
        lambda: model.generate(**inputs, do_sample=False, max_new_tokens=2),
        lambda: model.classify(SENTENCES, processor, LABELS, prompt="Who"),
    ):
        with pytest.raises(FloatingPointError, match="overflowed in float16"):
            answer()


def test_a_forbidden_token_is_no_overflow(fresh):
    model, processor = fresh()
    inputs = batch(random_rows(model, processor))
    model.final_logits_bias[0, 3] = -torch.inf
    model.lm_head.weight.data[3] = 0
    assert (logits_of(model.to(torch.float16), inputs)[:, 3] == -torch.inf).all()


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_accelerator
def test_cpu_and_accelerator_agree(fresh, bridge):
    model, processor = fresh(bridge)
    inputs = batch(random_rows(model, processor))
    settings = {"top_k": 5, "translations": TRANSLATIONS}
    expected, words = logits_of(model, inputs), model.next_words(SENTENCES, processor, **settings)
    device = torch.accelerator.current_accelerator()
    model.to(device)
    found = logits_of(model, {name: value.to(device) for name, value in inputs.items()}).cpu()
    assert relative_distance(found, expected) < 1e-3
    check_choices(model.next_words(SENTENCES, processor, **settings), words, 1e-3)
    # Half precision too, where a GPU has kernels of its own.
    model.to(torch.bfloat16)
    found = logits_of(model, {name: value.to(device) for name, value in inputs.items()}).cpu()
    assert relative_distance(found, expected) < BOUNDS[torch.bfloat16]


@pytest.mark.gpu
@needs_accelerator
@torch.no_grad()
def test_cpu_and_accelerator_agree_in_layer_fusion(fused):
    model, processor = copy.deepcopy(fused())
    inputs = processor(text=SENTENCES, prompt="Who", return_tensors="pt")
    expected = model(**inputs).logits[:, -1]
    device = torch.accelerator.current_accelerator()
    found = model.to(device)(**inputs.to(device)).logits[:, -1].cpu()
    assert relative_distance(found, expected) < 1e-3
