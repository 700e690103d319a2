"""Source fusion: both kinds against the paper's formulas, computed by hand, and what a TALL makes of them."""

import itertools
import math

import parts
import pytest
import torch
from batches import batch, random_rows, real_positions
from transformers import AutoModelForSeq2SeqLM

from tall_hf import TALLConfig, TALLForCausalLM
from tall_hf.modeling.fusion_tall import GlobalSoftmaxFusion, TokenSoftmaxFusion, encode_layers


FUSIONS = ("global_softmax", "token_softmax")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def random_layers(layers=3, batch=2, length=4, width=6):
    return tuple(torch.randn(batch, length, width) for _ in range(layers))


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_global_softmax_is_uniform_at_the_start_and_the_formula_later():
    fusion, layers = GlobalSoftmaxFusion(3), random_layers()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    mean = (layers[0] + layers[1] + layers[2]) / 3
    got = fusion(layers, mask)
    torch.testing.assert_close(got[mask.bool()], mean[mask.bool()], **CLOSE)
    assert (got[1, 2:] == 0).all()

    with torch.no_grad():
        fusion.layer_logits.copy_(torch.tensor([0.01, 0.0, -0.02]))
        fusion.temperature.fill_(2e-4)  # so the temperature is 100 + 1e5 * 2e-4 = 120
    powers = [math.exp(1.2), 1.0, math.exp(-2.4)]
    weights = [power / sum(powers) for power in powers]
    assert fusion.layer_weights(layers)[1, 3].tolist() == pytest.approx(weights, rel=1e-4)
    expected = sum(weight * states for weight, states in zip(weights, layers, strict=True))
    torch.testing.assert_close(fusion(layers, mask)[0], expected[0], **CLOSE)


def test_the_temperature_multiplies_the_gradient_by_a_hundred():
    fusion, layers = GlobalSoftmaxFusion(3), random_layers()
    fusion(layers, torch.ones(2, 4))[0, 0, 0].backward()
    values = torch.stack([states[0, 0, 0] for states in layers])
    # Of the mean by uniform weights: d/da_l = tau / 3 * (h_l - mean).
    torch.testing.assert_close(fusion.layer_logits.grad, 101.0 / 3 * (values - values.mean()), rtol=1e-3, atol=1e-3)


def weights_of_a_token(fusion, states):
    """Softmax weights for one token's (layers, width) states, from the weights by elementary steps."""
    weights = fusion.state_dict()
    rows = torch.cat([weights["query"], states + weights["layer_positions"]])
    queries, keys, values = (
        rows @ matrix.T + bias
        for matrix, bias in zip(
            weights["mixer.self_attn.in_proj_weight"].chunk(3),
            weights["mixer.self_attn.in_proj_bias"].chunk(3),
            strict=True,
        )
    )
    attended = (queries @ keys.T / rows.shape[1] ** 0.5).softmax(dim=-1) @ values

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    rows = norm("mixer.norm1", rows + linear("mixer.self_attn.out_proj", attended))
    rows = norm("mixer.norm2", rows + linear("mixer.linear2", linear("mixer.linear1", rows).relu()))
    return linear("layer_scores", rows[0]).softmax(dim=-1)


@pytest.mark.parametrize("training", [True, False])
def test_token_softmax_weighs_each_token_by_a_post_norm_layer_over_its_layers(training):
    fusion, layers = TokenSoftmaxFusion(3, 6).train(training), random_layers()
    for module in fusion.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    fusion.mixer.self_attn.dropout = 0.0
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0]])
    widened = []
    fusion.mixer.linear1.register_forward_hook(lambda module, args, output: widened.append(output.shape[:-1].numel()))
    got, weights = fusion(layers, mask).detach(), fusion.layer_weights(layers).detach()
    assert widened == [8, 8]  # a row a token, not one for each of its layers
    for row, column in itertools.product(range(2), range(4)):
        states = torch.stack([layer[row, column] for layer in layers])
        expected = weights_of_a_token(fusion, states)
        torch.testing.assert_close(weights[row, column], expected, **CLOSE)
        # Of the states themselves, without the positions; and nothing of padding.
        torch.testing.assert_close(got[row, column], mask[row, column] * (expected @ states), **CLOSE)
    assert weights[0].std(dim=0).max() > 1e-3, "all tokens have the same weights"


def test_starting_values_are_the_papers():
    fusion = TokenSoftmaxFusion(50, 64)
    assert (fusion.query == 0).all()
    assert fusion.layer_positions.std().item() == pytest.approx(1, abs=0.1)
    assert fusion.mixer.linear1.out_features == 2048
    assert (fusion.mixer.self_attn.num_heads, fusion.mixer.norm_first, fusion.mixer.dropout.p) == (1, False, 0.1)
    assert fusion.mixer.activation is torch.nn.functional.relu
    spread = fusion.mixer.linear1.weight.abs().max().item()
    assert 0.9 / 8 < spread <= 1 / 8  # torch's own start: uniform up to 1 / sqrt(width)


# --- in a TALL -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("translator", ["marian", "nllb"])
def test_it_reads_every_layer_of_the_source_encoder_but_the_embeddings(composed, part_folders, translator, fusion):
    model, processor = composed("gated", translator, source_fusion=fusion)
    rows = random_rows(model, processor)
    inputs = batch(rows)
    original = AutoModelForSeq2SeqLM.from_pretrained(part_folders(translator)["lr_hr"]).get_encoder().eval()
    seen = []
    handle = model.encoder.source_fusion.register_forward_hook(
        lambda module, args, output: seen.append((args, output))
    )
    with torch.no_grad():
        model(**inputs)
        expected = original(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True)
    handle.remove()
    [((layers, mask), output)] = seen
    assert len(layers) == len(original.layers) == model.config.lr_hr_config.encoder_layers
    wanted = [*expected.hidden_states[1 : len(layers)], expected.last_hidden_state]
    for got, states in zip(layers, wanted, strict=True):
        for one, other in zip(real_positions(got, mask), real_positions(states, mask), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    weights = model.encoder.source_fusion.layer_weights(layers)
    mixed = sum(weights[..., i : i + 1] * layer for i, layer in enumerate(layers)) * mask.unsqueeze(-1)
    torch.testing.assert_close(output, mixed, **CLOSE)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("bridge", ["marian", "gated", "concat"])
@torch.no_grad()
def test_padding_changes_nothing(composed, bridge, fusion):
    model, processor = composed(bridge, source_fusion=fusion)
    rows = random_rows(model, processor)
    for sides in (("left",) * 3, ("right",) * 3):
        inputs = batch(rows, sides=sides, garbage=1)
        together = real_positions(model(**inputs).logits, inputs["decoder_attention_mask"])
        for got, row in zip(together, rows, strict=True):
            torch.testing.assert_close(got, model(**batch([row])).logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_is_trained_saved_and_counted_with_the_adapters(fresh, fusion, tmp_path):
    model, processor = fresh("gated", source_fusion=fusion)
    if fusion == "global_softmax":  # what moves the other weights off their start saturates this one
        model.encoder.source_fusion.reset_parameters()
        model.encoder.source_fusion.layer_logits.data[0] = 0.002
    inputs = batch(random_rows(model, processor))
    labels = torch.where(inputs["decoder_attention_mask"] == 1, inputs["decoder_input_ids"], -100)
    model.train()
    model(**inputs, labels=labels).loss.backward()
    learned = dict(model.encoder.source_fusion.named_parameters())
    assert learned and all(parameter.grad.abs().sum() > 0 for parameter in learned.values())
    assert all(parameter.grad is None for parameter in model.encoder.translator.parameters())
    size = sum(parameter.numel() for parameter in learned.values())
    assert ("source fusion", size, size, size) in model.parameter_table()
    names = [row[0] for row in model.parameter_table()]
    assert names.index("source fusion") == 1 and names[names.index("gate") + 1] == "LLM body"

    model.eval().save_pretrained(tmp_path)
    loaded = TALLForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.source_fusion == fusion
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_what_no_checkpoint_holds_starts_as_the_paper_starts_it(tiny_config, composed, tmp_path):
    """Composing brings the frozen parts alone; transformers leaves what is missing as memory had it, unless told."""
    model, _ = composed("gated")
    for fusion in FUSIONS:
        config = tiny_config(source_bridge="gated", source_fusion=fusion)
        made = TALLForCausalLM.from_pretrained(
            None, config=config, state_dict=model.state_dict()
        ).encoder.source_fusion
        if fusion == "global_softmax":
            assert made.layer_logits.tolist() == pytest.approx([3e-5] * len(made.layer_logits))
            assert made.temperature.item() == pytest.approx(1e-5)
        else:
            assert (made.query == 0).all() and (made.mixer.self_attn.out_proj.bias == 0).all()
            assert 0.5 < made.layer_positions.std() < 1.5
            bound = made.layer_scores.in_features**-0.5
            assert 0.5 * bound < made.layer_scores.weight.abs().max() <= bound


def test_the_last_layer_alone_needs_no_module_and_no_other_states(composed):
    model, processor = composed("gated")
    assert model.encoder.source_fusion is None
    assert not any("fusion" in name for name in model.state_dict())
    assert "source fusion" not in [row[0] for row in model.parameter_table()]
    encoder, inputs = model.encoder.translator.get_encoder(), batch(random_rows(model, processor))
    [last] = encode_layers(encoder, inputs["input_ids"], inputs["attention_mask"], every_layer=False)
    assert torch.equal(last, model.encoder.encode_source(inputs["input_ids"], inputs["attention_mask"]))


def test_a_bridge_that_reads_no_source_states_has_none_to_fuse():
    with pytest.raises(ValueError, match="`source_fusion` 'token_softmax' fuses states that the bridge \"none\""):
        TALLConfig(source_bridge="none", source_fusion="token_softmax")


def test_generation_and_words_work_with_a_fusion(composed):
    model, processor = composed("gated", source_fusion="token_softmax")
    together = model.next_words(parts.SENTENCES, processor, top_k=2)
    alone = [model.next_words([text], processor, top_k=2)[0] for text in parts.SENTENCES]
    assert [[word for word, _ in words] for words in together] == [[word for word, _ in words] for words in alone]
