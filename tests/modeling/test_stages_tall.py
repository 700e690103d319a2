"""Every stage of TALLForCausalLM against the same stage computed by hand from the original checkpoints."""

import pytest
import torch
from batches import batch, random_rows, real_positions
from reference import Reference


# float32, six to ten layers deep
CLOSE = {"rtol": 1e-4, "atol": 2e-4}


@pytest.fixture
def case(composed, part_folders):
    """`case(bridge, translator)` is (model, its reference, four rows, their padded batch)."""

    def build(bridge, translator="marian"):
        model, processor = composed(bridge, translator)
        rows = random_rows(model, processor)
        return model, Reference(part_folders(translator), model), rows, batch(rows)

    return build


def captured(module, run, what):
    """What `module` was called with ("kwargs") or returned ("output") while `run` ran."""
    seen = []
    handle = module.register_forward_hook(
        lambda _, args, kwargs, output: seen.append((args, kwargs) if what == "inputs" else output), with_kwargs=True
    )
    with torch.no_grad():
        run()
    handle.remove()
    assert len(seen) == 1
    return seen[0]


def test_stage_1_is_the_encoder_of_the_source_translator(case):
    model, reference, rows, inputs = case("marian")
    states = captured(model.encoder.translator.get_encoder(), lambda: model(**inputs), "output").last_hidden_state
    for got, (source, _, _) in zip(real_positions(states, inputs["attention_mask"]), rows, strict=True):
        torch.testing.assert_close(got, reference.read_source(source), **CLOSE)


@pytest.mark.parametrize("name", ["source_alignment", "target_alignment"])
def test_stages_2_and_5_are_the_papers_mlp(case, name):
    model, reference, _, inputs = case("marian")
    alignment = getattr(model.encoder, name)
    (states,), _ = captured(alignment, lambda: model(**inputs), "inputs")
    got = captured(alignment, lambda: model(**inputs), "output")
    torch.testing.assert_close(got, reference.align(name, states), **CLOSE)


@pytest.mark.parametrize("bridge", ["marian", "gated", "none"])
def test_stage_3_writes_what_the_llm_reads(case, bridge):
    model, reference, rows, inputs = case(bridge)
    _, kwargs = captured(model.encoder.llm, lambda: model(**inputs), "inputs")
    real = real_positions(kwargs["inputs_embeds"], inputs["llm_attention_mask"])
    for got, (source, translation, _) in zip(real, rows, strict=True):
        memory = reference.align("source_alignment", reference.read_source(source)) if bridge != "none" else None
        expected = reference.bridge_source(reference.embed(translation), memory)
        torch.testing.assert_close(got, expected.detach(), **CLOSE)


def test_custom_decoder_1_is_causal_and_scales_its_queries(case):
    model, reference, rows, inputs = case("marian")
    got = captured(model.encoder.source_decoder, lambda: model(**inputs), "output").last_hidden_state[0]
    source, translation, _ = rows[0]
    memory = reference.align("source_alignment", reference.read_source(source))
    embeddings = reference.embed(translation)
    torch.testing.assert_close(got[: len(translation)], reference.decode_source(embeddings, memory).detach(), **CLOSE)

    # A change of the last token reaches no earlier position, and unscaled queries would give something else.
    inputs["llm_input_ids"][0, len(translation) - 1] += 1
    changed = captured(model.encoder.source_decoder, lambda: model(**inputs), "output").last_hidden_state[0]
    assert torch.equal(changed[: len(translation) - 1], got[: len(translation) - 1])
    assert not torch.allclose(changed[len(translation) - 1], got[len(translation) - 1], atol=1e-2)
    unscaled = reference.decode_source(embeddings / embeddings.shape[-1] ** 0.5, memory)
    assert not torch.allclose(got[: len(translation)], unscaled, atol=1e-2)


def test_concat_bridge_puts_the_source_before_the_translation(case):
    model, reference, rows, inputs = case("concat")
    _, kwargs = captured(model.encoder.llm, lambda: model(**inputs), "inputs")
    joint, mask = kwargs["inputs_embeds"], kwargs["attention_mask"]
    assert mask.sum(1).tolist() == [len(source) + len(translation) for source, translation, _ in rows]
    for got, (source, translation, _) in zip(joint, rows, strict=True):
        memory = reference.align("source_alignment", reference.read_source(source))
        expected = reference.bridge_source(reference.embed(translation), memory).detach()
        torch.testing.assert_close(got[: len(expected)], expected, **CLOSE)
        assert torch.equal(got[len(source) : len(expected)], reference.embed(translation))


def test_stage_4_is_the_llm_body(case, bridge):
    model, reference, rows, inputs = case(bridge)
    _, kwargs = captured(model.encoder.llm, lambda: model(**inputs), "inputs")
    (states,), _ = captured(model.encoder.target_alignment, lambda: model(**inputs), "inputs")
    for i, (_, translation, _) in enumerate(rows):
        fed = kwargs["inputs_embeds"][i][kwargs["attention_mask"][i].bool()]
        expected = reference.think(fed)[-len(translation) :].detach()
        torch.testing.assert_close(states[i, : len(translation)], expected, **CLOSE)


def test_stages_1_to_6_are_the_encoder(case, bridge):
    model, reference, rows, inputs = case(bridge)
    with torch.no_grad():
        states = model(**inputs).encoder_last_hidden_state
    for got, (source, translation, _) in zip(states, rows, strict=True):
        torch.testing.assert_close(got[: len(translation)], reference.encode(source, translation), **CLOSE)


def test_forward_equals_the_reference(case, bridge, translator):
    model, reference, rows, inputs = case(bridge, translator)
    with torch.no_grad():
        logits = model(**inputs).logits
    for got, row in zip(real_positions(logits, inputs["decoder_attention_mask"]), rows, strict=True):
        expected = reference(*row)
        torch.testing.assert_close(got, expected, **CLOSE)
        assert expected.std() > 0.1


def test_final_logits_bias_is_the_translators_and_is_added(case):
    model, reference, _, inputs = case("marian")
    bias = reference.hr_lr.final_logits_bias
    assert bias.abs().max() > 0.1
    assert torch.equal(model.final_logits_bias, bias)
    head = captured(model.lm_head, lambda: model(**inputs), "output")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, head + bias)


def test_each_input_matters(case, bridge):
    """Else the comparisons above could hold with an input that nobody reads."""
    model, _, _, inputs = case(bridge)
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
        for name, column in (("input_ids", 0), ("llm_input_ids", 0), ("decoder_input_ids", -1)):
            changed = inputs[name].clone()
            changed[:, column] = torch.where(changed[:, column] == 5, 6, 5)
            difference = (model(**{**inputs, name: changed}).logits[:, -1] - logits).abs().amax(dim=1)
            if name == "input_ids" and bridge == "none":
                assert difference.max() == 0
            else:
                assert difference.min() > 1e-3, name
