"""Padding changes nothing: each row of a batch gets what it gets alone, whatever pads it and on whichever side."""

import itertools

import pytest
import torch
from batches import batch, random_rows, real_positions


CLOSE = {"rtol": 1e-4, "atol": 1e-4}
# Else the tiny models repeat one token, and rows that are mixed up would not show.
NO_REPEATS = {"do_sample": False, "no_repeat_ngram_size": 1, "max_new_tokens": 6}
SIDES = list(itertools.product(("left", "right"), repeat=3))


@torch.no_grad()
def logits_of(model, rows, **padding):
    """Logits at each row's tokens."""
    inputs = batch(rows, **padding)
    return real_positions(model(**inputs).logits, inputs["decoder_attention_mask"])


@torch.no_grad()
def generated(model, rows, **settings):
    """What is new in each row."""
    inputs = batch(rows)
    return model.generate(**inputs, **settings)[:, inputs["decoder_input_ids"].shape[1] :].tolist()


def test_forward_of_a_batch_equals_each_row_alone(composed, bridge, translator):
    model, processor = composed(bridge, translator)
    rows = random_rows(model, processor)
    for i, lengths in enumerate(zip(*[[len(part) for part in row] for row in rows], strict=True)):
        assert len(set(lengths)) == len(rows), f"input {i} has two rows of one length"
    alone = [logits_of(model, [row])[0] for row in rows]
    assert min((a[-1] - b[-1]).abs().max() for a, b in itertools.combinations(alone, 2)) > 1e-2
    for got, expected in zip(logits_of(model, rows), alone, strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("sides", SIDES, ids="-".join)
def test_forward_does_not_depend_on_the_side_of_padding(composed, bridge, sides):
    model, processor = composed(bridge)
    rows = random_rows(model, processor)
    for got, row in zip(logits_of(model, rows, sides=sides), rows, strict=True):
        torch.testing.assert_close(got, logits_of(model, [row])[0], **CLOSE)


@pytest.mark.parametrize("sides", [("left", "left", "left"), ("right", "right", "right")], ids="-".join)
def test_forward_does_not_depend_on_the_ids_under_the_padding(composed, bridge, translator, sides):
    model, processor = composed(bridge, translator)
    rows = random_rows(model, processor)
    first, second = (logits_of(model, rows, sides=sides, garbage=garbage) for garbage in (1, 2))
    for got, again, row in zip(first, second, rows, strict=True):
        assert torch.equal(got, again)
        torch.testing.assert_close(got, logits_of(model, [row])[0], **CLOSE)


def test_any_number_but_zero_marks_a_token(composed, bridge, translator):
    model, processor = composed(bridge, translator)
    inputs = batch(random_rows(model, processor))
    masks = [name for name in inputs if name.endswith("mask")]
    assert len(masks) == 3
    torch.manual_seed(0)
    for kind in (torch.long, torch.bool, torch.float32):
        others = {name: (inputs[name] * torch.randint(1, 4, inputs[name].shape)).to(kind) for name in masks}
        with torch.no_grad():
            got, expected = (model(**{**inputs, **given}).logits for given in (others, {}))
        where = inputs["decoder_attention_mask"] != 0
        torch.testing.assert_close(got[where], expected[where], **CLOSE)


def test_forward_reads_all_columns_when_there_are_no_masks(composed, bridge):
    model, processor = composed(bridge)
    rows = random_rows(model, processor, lengths=((5, 7, 3), (5, 7, 3)))
    inputs = batch(rows)
    without = {name: value for name, value in inputs.items() if "mask" not in name}
    with torch.no_grad():
        torch.testing.assert_close(model(**without).logits, model(**inputs).logits)


def test_llm_families_do_not_see_the_padding(composed, llm):
    """Positions by column, by mask, or by ALiBi's distance: each LLM numbers them in its own way."""
    for bridge in ("gated", "concat"):
        model, processor = composed(bridge, llm=llm)
        rows = random_rows(model, processor)
        for sides in (("right", "right", "left"), ("left", "left", "left")):
            for got, row in zip(logits_of(model, rows, sides=sides, garbage=3), rows, strict=True):
                torch.testing.assert_close(got, logits_of(model, [row])[0], **CLOSE)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generate_of_a_batch_equals_each_row_alone(composed, bridge, translator, num_beams):
    model, processor = composed(bridge, translator)
    rows = random_rows(model, processor)
    together = generated(model, rows, num_beams=num_beams, **NO_REPEATS)
    assert len({tuple(row) for row in together}) > 1
    for got, row in zip(together, rows, strict=True):
        # A row that ends before the others is padded up to them.
        expected = generated(model, [row], num_beams=num_beams, **NO_REPEATS)[0]
        pad = model.generation_config.pad_token_id
        assert got == expected + [pad] * (len(got) - len(expected))


def test_generate_does_not_depend_on_the_ids_under_the_padding(composed, bridge, translator):
    model, processor = composed(bridge, translator)
    rows = random_rows(model, processor)
    outputs = []
    for garbage in (1, 2):
        inputs = batch(rows, garbage=garbage)
        new = model.generate(**inputs, do_sample=False, max_new_tokens=5)[:, inputs["decoder_input_ids"].shape[1] :]
        outputs.append(new.tolist())
    assert outputs[0] == outputs[1]
