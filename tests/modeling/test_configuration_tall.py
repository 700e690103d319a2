"""TALLConfig: defaults, round trips, the parts in every form, and each switch refused or accepted."""

import copy
import json

import pytest
import torch
from transformers import AutoConfig, BertConfig, MarianConfig, Qwen2Config

from tall_hf import TALLConfig, TALLForCausalLM
from tall_hf.modeling.configuration_tall import SOURCE_BRIDGES, SOURCE_FUSIONS


PARTS = ("lr_hr_config", "llm_config", "hr_lr_config")
EVERY_SWITCH = {
    "source_bridge": "gated",
    "alignment_hidden_size": 48,
    "alignment_dropout": 0.25,
    "bridge_attention_heads": 7,
    "gate_init": 0.3,
    "initializer_range": 0.05,
    "translation_generation_config": {"num_beams": 3, "max_length": 40},
    "components": {"llm": {"name_or_path": "org/llm", "revision": "abc"}},
    "use_cache": False,
}


def test_defaults_are_the_papers_qwen_model():
    config = TALLConfig()
    source, llm, target = config.lr_hr_config, config.llm_config, config.hr_lr_config
    assert (config.source_bridge, config.source_fusion, config.alignment_dropout) == ("marian", "last", 0.1)
    assert (config.alignment_hidden_size, config.initializer_range) == (None, 0.02)
    assert (source.model_type, source.vocab_size, source.d_model, source.encoder_layers) == ("marian", 60269, 1024, 6)
    assert (source.decoder_attention_heads, source.decoder_ffn_dim, source.max_position_embeddings) == (16, 4096, 1024)
    assert (llm.model_type, llm.vocab_size, llm.hidden_size, llm.num_hidden_layers) == ("qwen2", 151936, 896, 24)
    assert (llm.intermediate_size, llm.num_attention_heads, llm.num_key_value_heads) == (4864, 14, 2)
    assert (target.model_type, target.vocab_size, target.d_model, target.encoder_layers) == ("marian", 65839, 512, 6)
    assert (target.encoder_attention_heads, target.encoder_ffn_dim, target.max_position_embeddings) == (8, 2048, 512)
    assert config.tie_word_embeddings
    assert config.is_encoder_decoder
    assert config.decoder_start_token_id == config.pad_token_id == target.pad_token_id == 65838


def test_json_round_trip_keeps_every_field(tmp_path):
    config = TALLConfig(**EVERY_SWITCH)
    for name, value in EVERY_SWITCH.items():
        assert getattr(config, name) == value
    config.save_pretrained(tmp_path)
    copies = (
        TALLConfig.from_dict(config.to_dict()),
        TALLConfig(**config.to_dict()),
        TALLConfig.from_dict(json.loads(config.to_json_string())),
        TALLConfig.from_dict(json.loads(config.to_json_string(use_diff=False))),
        TALLConfig.from_pretrained(tmp_path),
    )
    for loaded in copies:
        for name, value in EVERY_SWITCH.items():
            assert getattr(loaded, name) == value, name
        for name in PARTS:
            assert type(getattr(loaded, name)) is type(getattr(config, name))
            assert getattr(loaded, name).to_dict() == getattr(config, name).to_dict()
        assert loaded.decoder_start_token_id == config.decoder_start_token_id
        assert loaded.auto_map == config.auto_map


def test_saved_file_names_the_remote_code(tmp_path):
    TALLConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["model_type"] == "tall"
    assert set(saved["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"}
    assert saved["custom_pipelines"]["text-generation"]["impl"] == "pipeline_tall.TALLTextGenerationPipeline"
    assert [saved[name]["model_type"] for name in PARTS] == ["marian", "qwen2", "marian"]


@pytest.mark.parametrize("as_dict", [True, False])
def test_parts_come_as_dict_or_configuration(as_dict):
    given = {
        "lr_hr_config": MarianConfig(d_model=64, decoder_attention_heads=4),
        "llm_config": AutoConfig.for_model("gpt2", n_embd=32),
        "hr_lr_config": AutoConfig.for_model("mbart", d_model=48),
    }
    parts = {name: part.to_dict() if as_dict else part for name, part in given.items()}
    config = TALLConfig(**parts)
    for name, part in given.items():
        assert type(getattr(config, name)) is type(part)
        assert getattr(config, name).to_dict() == part.to_dict()
    assert config.llm_embedding_size == 32


def test_a_dict_without_model_type_is_of_the_default_type():
    assert isinstance(TALLConfig(llm_config={"hidden_size": 32}).llm_config, Qwen2Config)


def test_parts_are_copied():
    shared = MarianConfig(d_model=64, decoder_attention_heads=4)
    as_dict = {
        "model_type": "qwen2",
        "hidden_size": 32,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5.0},
    }
    before = copy.deepcopy(as_dict)
    config = TALLConfig(lr_hr_config=shared, hr_lr_config=shared, llm_config=as_dict)
    assert config.lr_hr_config is not shared
    assert config.lr_hr_config is not config.hr_lr_config
    config.lr_hr_config.d_model = 1
    config.llm_config.hidden_size = 1
    assert shared.d_model == config.hr_lr_config.d_model == 64
    assert as_dict == before


def test_default_parts_are_not_shared_between_configurations():
    TALLConfig().llm_config.hidden_size = 1
    assert TALLConfig().llm_config.hidden_size == 896


def test_get_text_config_is_the_translator_of_its_side():
    config = TALLConfig()
    assert config.get_text_config() is config.hr_lr_config
    # transformers hands out copies here, in which the layers and heads of one half are those of the whole
    assert config.get_text_config(decoder=True).vocab_size == config.hr_lr_config.vocab_size
    assert config.get_text_config(encoder=True).vocab_size == config.lr_hr_config.vocab_size


def test_special_tokens_of_the_target_can_be_overridden():
    config = TALLConfig(pad_token_id=1, eos_token_id=[2, 3], decoder_start_token_id=4, tie_word_embeddings=False)
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (1, [2, 3], 4)
    assert not TALLConfig.from_dict(config.to_dict()).tie_word_embeddings


@pytest.mark.parametrize(("name", "choices"), [("source_bridge", SOURCE_BRIDGES), ("source_fusion", SOURCE_FUSIONS)])
def test_choices(name, choices):
    for choice in choices:
        assert getattr(TALLConfig(**{name: choice}), name) == choice
    for wrong in ("Marian", "", None, 3):
        with pytest.raises(ValueError) as error:
            TALLConfig(**{name: wrong})
        assert name in str(error.value)
        assert repr(wrong) in str(error.value)
        assert all(repr(choice) in str(error.value) for choice in choices)


@pytest.mark.parametrize("name", ["alignment_hidden_size", "bridge_attention_heads"])
@pytest.mark.parametrize("wrong", [0, -4, 2.5, "8", True])
def test_sizes_are_positive_integers(name, wrong):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer or None, got {wrong!r}"):
        TALLConfig(**{name: wrong})


@pytest.mark.parametrize("wrong", [-0.1, 1, 1.5, "0.1", True, None])
def test_dropout_is_a_probability_below_one(wrong):
    with pytest.raises(ValueError, match=r"`alignment_dropout` must be a number in \[0, 1\)"):
        TALLConfig(alignment_dropout=wrong)
    assert TALLConfig(alignment_dropout=0).alignment_dropout == 0


@pytest.mark.parametrize("wrong", [True, "0.2", 3.5, float("nan"), None])
def test_a_gate_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="`gate_init` must be a number"):
        TALLConfig(gate_init=wrong)


def test_switches_are_checked_again_when_saved(tmp_path):
    config = TALLConfig()
    config.source_bridge = "rope"
    with pytest.raises(ValueError, match="`source_bridge` must be one of .*'rope'"):
        config.save_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["lr_hr_config", "hr_lr_config"])
@pytest.mark.parametrize("as_dict", [True, False])
def test_unsupported_translators_are_refused(name, as_dict):
    part = BertConfig()
    with pytest.raises(
        ValueError, match=f"`{name}` is of type 'bert'; supported translators are marian, m2m_100, mbart"
    ):
        TALLConfig(**{name: part.to_dict() if as_dict else part})


@pytest.mark.parametrize("name", PARTS)
def test_unknown_model_types_and_wrong_kinds_of_parts_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` has `model_type` 'no-such-model'"):
        TALLConfig(**{name: {"model_type": "no-such-model"}})
    with pytest.raises(ValueError, match=f"`{name}` must be a configuration or a dict, got str"):
        TALLConfig(**{name: "Qwen/Qwen2.5-0.5B"})


@pytest.mark.parametrize(("width", "heads", "working"), [(896, 12, 8), (100, 16, 10), (97, 4, 1), (40, 16, 10)])
def test_heads_that_do_not_divide_name_a_count_that_works(width, heads, working):
    parts = {
        "lr_hr_config": MarianConfig(
            vocab_size=10, d_model=16 * heads, decoder_attention_heads=heads, pad_token_id=9, decoder_start_token_id=9
        ),
        "llm_config": AutoConfig.for_model("gpt2", n_embd=width, n_head=1, n_layer=1, vocab_size=10),
        "hr_lr_config": MarianConfig(vocab_size=10, d_model=16, pad_token_id=9, decoder_start_token_id=9),
    }
    for bridge in ("marian", "gated"):
        with pytest.raises(
            ValueError, match=f"{width}.*not divisible by {heads} .*`bridge_attention_heads={working}`"
        ):
            TALLConfig(**parts, source_bridge=bridge)
    config = TALLConfig(**parts, bridge_attention_heads=working)
    with torch.device("meta"):
        model = TALLForCausalLM(config)
    assert model.encoder.source_decoder.layers[0].self_attn.num_heads == working
    # Bridges without custom decoder 1 have no heads to divide by.
    TALLConfig(**parts, source_bridge="concat")


def test_given_heads_that_do_not_divide_are_refused_by_their_name():
    with pytest.raises(ValueError, match="from `bridge_attention_heads`"):
        TALLConfig(bridge_attention_heads=9)


def test_lengths_follow_from_the_position_tables():
    config = TALLConfig()
    assert (config.max_source_length, config.max_target_length) == (1024, 512)
    assert config.max_translation_length == 512
    # BLOOM has no position table, and a joint sequence of source and translation has to fit the LLM's.
    assert TALLConfig(llm_config={"model_type": "bloom", "hidden_size": 1024}).max_translation_length == 512
    short = {"model_type": "gpt2", "n_embd": 64, "n_positions": 1100}
    # Source and translation share the LLM's positions in a concatenation.
    shared = TALLConfig(llm_config=short, source_bridge="concat")
    assert (shared.max_source_length, shared.max_translation_length) == (550, 512)
