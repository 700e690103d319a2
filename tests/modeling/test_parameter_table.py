"""parameter_table() on the meta device against Tables 2 to 4 of the paper, to the parameter."""

import pytest
import torch
from transformers import BloomConfig

from tall_hf import TALLConfig, TALLForCausalLM


# bigscience/bloomz-560m
BLOOMZ = {"llm_config": BloomConfig(vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16)}
# Module: (total, trainable as the paper counts, with a gradient). The fixed positions of the two custom transformers
# are trainable by the paper's count.
SHARED = {
    "LR→HR encoder": (138_341_376, 0, 0),
    "custom encoder 2": (19_176_448, 19_176_448, 19_176_448 - 512 * 512),
    "HR→LR decoder": (59_195_904, 0, 0),
    "LM head (tied)": (33_709_568, 0, 0),
}
TABLES = {
    "bloomz-560m": (
        BLOOMZ,
        {
            "LLM embeddings": (256_901_120, 0, 0),
            "alignment 1": (4_203_520, 4_203_520, 4_203_520),
            "custom decoder 1": (101_828_608, 101_828_608, 101_828_608 - 1024 * 1024),
            "LLM body": (302_313_472, 0, 0),
            "alignment 2": (1_577_472, 1_577_472, 1_577_472),
            "total": (883_537_920, 126_786_048, 125_475_328),
        },
        (559_214_592, 0.633, 0.1435),
    ),
    "Qwen2.5-0.5B": (
        {},
        {
            "LLM embeddings": (136_134_656, 0, 0),
            "alignment 1": (3_448_704, 3_448_704, 3_448_704),
            "custom decoder 1": (83_598_080, 83_598_080, 83_598_080 - 1024 * 896),
            "LLM body": (357_898_112, 0, 0),
            "alignment 2": (1_446_400, 1_446_400, 1_446_400),
            "total": (799_239_680, 107_669_632, 106_489_984),
        },
        (494_032_768, 0.618, 0.1347),
    ),
}
OUTSIDE = "LR→HR decoder (translation only, not in the total)"


def table_of(**config):
    with torch.device("meta"):
        rows = TALLForCausalLM(TALLConfig(**config)).parameter_table()
    assert len({row[0] for row in rows}) == len(rows)
    return {name: counts for name, *counts in rows}


@pytest.mark.parametrize("llm_name", TABLES)
def test_counts_equal_the_papers_tables(llm_name):
    config, expected, (llm_size, llm_share, trainable_share) = TABLES[llm_name]
    table = table_of(**config)
    outside = table.pop(OUTSIDE)
    assert {name: tuple(counts) for name, counts in table.items()} == SHARED | expected
    total, trainable, _ = table["total"]
    assert table["LLM embeddings"][0] + table["LLM body"][0] == llm_size
    assert round(llm_size / total, 3) == llm_share
    assert round(trainable / total, 4) == trainable_share
    # Six layers of self-attention, cross-attention and feed-forward, and 1024 positions; its embeddings are shared.
    layer = 8 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 3 * 2 * 1024
    assert outside == [6 * layer + 1024 * 1024, 0, 0]


@pytest.mark.parametrize("llm_name", TABLES)
def test_the_total_counts_each_parameter_of_the_model_once(llm_name):
    config = TABLES[llm_name][0]
    with torch.device("meta"):
        model = TALLForCausalLM(TALLConfig(**config))
    table = {name: counts for name, *counts in model.parameter_table()}
    everything = sum(p.numel() for p in model.parameters())
    assert table["total"][0] + table[OUTSIDE][0] == everything
    assert table["total"][2] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_other_bridges_have_their_own_rows():
    marian, gated = table_of(), table_of(source_bridge="gated")
    assert gated.pop("gate") == [1, 1, 1]
    assert gated.pop("total") == [count + 1 for count in marian.pop("total")]
    assert gated == marian
    concat, none = table_of(source_bridge="concat"), table_of(source_bridge="none")
    assert concat["custom decoder 1"] == none["custom decoder 1"] == none["alignment 1"] == [0, 0, 0]
    assert concat["alignment 1"] == marian["alignment 1"]
    assert none["total"][0] == 799_239_680 - 3_448_704 - 83_598_080


def test_an_untied_head_is_in_the_total():
    table = table_of(tie_word_embeddings=False, hr_lr_config=TALLConfig().hr_lr_config)
    assert table["LM head"] == [33_709_568, 0, 0]
    assert "LM head (tied)" not in table
    assert table["total"][0] == 799_239_680 + 33_709_568
