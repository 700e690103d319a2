"""DimensionAlignment: its shape, its formula, its dropout and how it starts."""

import pytest
import torch
from torch.nn import functional

from tall_hf import TALLConfig, TALLForCausalLM
from tall_hf.modeling.alignment_tall import DimensionAlignment


def test_formula():
    alignment = DimensionAlignment(input_size=3, output_size=4, hidden_size=8, dropout=0.5).eval()
    with torch.no_grad():
        for parameter in alignment.parameters():
            parameter.normal_()
        states = torch.randn(2, 5, 3)
        hidden = states @ alignment.up_proj.weight.T + alignment.up_proj.bias
        hidden = functional.layer_norm(hidden, (8,), alignment.hidden_norm.weight, alignment.hidden_norm.bias)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        output = hidden @ alignment.down_proj.weight.T + alignment.down_proj.bias
        output = functional.layer_norm(output, (4,), alignment.output_norm.weight, alignment.output_norm.bias)
        torch.testing.assert_close(alignment(states), output)


def test_dropout_stands_between_activation_and_second_map():
    alignment = DimensionAlignment(input_size=3, output_size=4, hidden_size=6, dropout=0.5).train()
    states = torch.randn(1, 1, 3)
    torch.manual_seed(1)
    got = alignment(states)
    torch.manual_seed(1)
    hidden = functional.gelu(alignment.hidden_norm(alignment.up_proj(states)))
    expected = alignment.output_norm(alignment.down_proj(functional.dropout(hidden, 0.5)))
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, alignment.eval()(states))


def test_hidden_width_is_twice_the_output_unless_given(tiny_config):
    default = TALLForCausalLM(tiny_config()).encoder
    assert default.source_alignment.up_proj.weight.shape == (2 * 32, 16)
    assert default.source_alignment.down_proj.weight.shape == (32, 2 * 32)
    assert default.target_alignment.up_proj.weight.shape == (2 * 24, 32)
    given = TALLForCausalLM(tiny_config(alignment_hidden_size=10, alignment_dropout=0.3)).encoder
    for alignment in (given.source_alignment, given.target_alignment):
        assert alignment.up_proj.out_features == 10
        assert alignment.dropout.p == 0.3


def test_a_linear_alignment_is_one_map_and_an_identity_none(tiny_config):
    linear = TALLForCausalLM(tiny_config(alignment_type="linear"))
    states = torch.randn(2, 3, 16)
    alignment = linear.encoder.source_alignment
    expected = states @ alignment.weight.T + alignment.bias
    torch.testing.assert_close(alignment(states), expected)
    assert {row[0]: row[1] for row in linear.parameter_table()}["alignment 2"] == 32 * 24 + 24
    with pytest.raises(ValueError, match="the LLM 32, the HR→LR translator 24, the LR→HR translator 16"):
        tiny_config(alignment_type="identity")
    with pytest.raises(ValueError, match="alignment_hidden_size` is of the alignments"):
        tiny_config(alignment_type="linear", alignment_hidden_size=8)


def test_equal_widths_need_no_alignment():
    translator = {"vocab_size": 10, "d_model": 16, "max_position_embeddings": 8}
    translator |= {"pad_token_id": 9, "decoder_start_token_id": 9}
    translator |= {f"{half}_{size}": 1 for half in ("encoder", "decoder") for size in ("layers", "ffn_dim")}
    translator |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    llm = {"vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 8}
    llm |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    parts = {"lr_hr_config": translator, "llm_config": llm, "hr_lr_config": translator}
    model = TALLForCausalLM(TALLConfig(**parts, alignment_type="identity")).eval()
    table = {row[0]: row[1] for row in model.parameter_table()}
    assert table["alignment 1"] == table["alignment 2"] == 0
    ids = torch.tensor([[1, 2, 3]])
    read = []
    model.encoder.target_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    written = []
    model.encoder.llm.register_forward_hook(lambda module, args, output: written.append(output.last_hidden_state))
    model(input_ids=ids, llm_input_ids=ids, decoder_input_ids=ids)
    assert torch.equal(read[0], written[0])
    assert model.dtype == torch.float32


def test_weights_start_normal_with_the_papers_spread():
    translator = {
        "vocab_size": 10,
        "d_model": 256,
        "max_position_embeddings": 8,
        "pad_token_id": 9,
        "decoder_start_token_id": 9,
    }
    translator |= {f"{half}_{size}": 1 for half in ("encoder", "decoder") for size in ("layers", "ffn_dim")}
    llm = {"vocab_size": 10, "hidden_size": 256, "num_hidden_layers": 1, "intermediate_size": 8}
    config = TALLConfig(lr_hr_config=translator, llm_config=llm, hr_lr_config=translator)
    for spread in (0.02, 0.1):
        config.initializer_range = spread
        encoder = TALLForCausalLM(config).encoder
        for alignment in (encoder.source_alignment, encoder.target_alignment):
            for linear in (alignment.up_proj, alignment.down_proj):
                assert abs(linear.weight.std().item() / spread - 1) < 0.02
                assert abs(linear.weight.mean().item()) < spread / 50
                assert not linear.bias.any()
            for norm in (alignment.hidden_norm, alignment.output_norm):
                assert (norm.weight == 1).all()
                assert not norm.bias.any()
