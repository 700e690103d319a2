"""Broken and hostile configurations: refused with the field's name before anything is built, and never built for ever."""

import itertools
import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from tall_hf import LayerFusionConfig, LayerFusionForCausalLM, TALLConfig, TALLForCausalLM, load_light
from tall_hf.modeling.part_configs_tall import check_types
from tall_hf.training.light import save_light


HUGE = 10**12
NO_NUMBER = float("nan")
# (class, field that is wrong, its value): the message names the field and shows the value.
WRONG = [
    *(
        (kind, name, value)
        for kind in (TALLConfig, LayerFusionConfig)
        for name, value in [
            ("use_cache", "yes"),
            ("use_cache", 3),
            ("trainable_only", 3),
            ("initializer_range", "x"),
            ("initializer_range", -1),
            ("initializer_range", NO_NUMBER),
            ("initializer_range", 10**400),
            ("components", [1]),
            ("components", {"llm": 3}),
            ("components", {3: {}}),
            ("pad_token_id", "a"),
            ("pad_token_id", True),
            ("pad_token_id", -5),
            ("pad_token_id", HUGE),
            ("eos_token_id", [1, "b"]),
            ("eos_token_id", [True]),
            ("eos_token_id", [1, HUGE]),
            ("bos_token_id", 2.5),
            ("source_fusion", ["last"]),
            ("source_fusion", {}),
            ("llm_config", 3),
            ("llm_config", []),
            *(("id2label", value) for value in (True, 3, "", [])),
            *(("dtype", value) for value in ("", "abc", NO_NUMBER, "Tensor")),
        ]
    ),
    (TALLConfig, "num_labels", HUGE),
    (LayerFusionConfig, "num_labels", 10**9),
    (TALLConfig, "decoder_start_token_id", HUGE),
    (TALLConfig, "alignment_hidden_size", HUGE),
    (TALLConfig, "bridge_attention_heads", HUGE),
    (TALLConfig, "bridge_attention_heads", 999_999),
    (TALLConfig, "look_ahead", HUGE),
    (TALLConfig, "gate_init", [1]),
    (TALLConfig, "gate_init", True),
    (TALLConfig, "alignment_dropout", NO_NUMBER),
    (TALLConfig, "translation_generation_config", "x"),
    *(
        (kind, name, value)
        for kind in (TALLConfig, LayerFusionConfig)
        for name, value in [("quantization_config", 3), ("quantization_config", [])]
    ),
    (TALLConfig, "lora", "x"),
    (TALLConfig, "is_encoder_decoder", "no"),
    (LayerFusionConfig, "end_vector_std", float("inf")),
    (LayerFusionConfig, "mapping_type", None),
]
# (class, part, its type, field, value): the message names part and field.
WRONG_PARTS = [
    *(
        (TALLConfig, part, "marian", name, value)
        for part in ("lr_hr_config", "hr_lr_config")
        for name, value in [
            ("d_model", "wide"),
            ("d_model", -5),
            ("d_model", 0),
            ("d_model", HUGE),
            ("encoder_layers", 10**9),
            ("decoder_layers", 10**9),
            ("encoder_ffn_dim", HUGE),
            ("decoder_attention_heads", 0),
            ("vocab_size", HUGE),
            ("vocab_size", None),
            ("max_position_embeddings", 10**8),
            ("num_labels", 10**9),
            ("dropout", "x"),
        ]
    ),
    *(
        (kind, "llm_config", model_type, name, value)
        for kind in (TALLConfig, LayerFusionConfig)
        for model_type, name, value in [
            ("qwen2", "hidden_size", HUGE),
            ("qwen2", "num_hidden_layers", 10**9),
            ("llama", "num_key_value_heads", 0),
            ("llama", "max_position_embeddings", -3),
            ("llama", "intermediate_size", 2.5),
            ("gpt2", "n_layer", 10**9),
            ("bloom", "hidden_size", "a"),
            ("opt", "word_embed_proj_dim", -1),
        ]
    ),
    (LayerFusionConfig, "encoder_config", "mt5", "num_layers", 10**9),
    (LayerFusionConfig, "encoder_config", "mt5", "d_kv", HUGE),
    (LayerFusionConfig, "encoder_config", "mt5", "relative_attention_num_buckets", HUGE),
    (LayerFusionConfig, "encoder_config", "mt5", "num_heads", 10**9),
    (LayerFusionConfig, "encoder_config", "xlm-roberta", "type_vocab_size", HUGE),
    (TALLConfig, "llm_config", "mixtral", "num_local_experts", 10**9),
    (TALLConfig, "llm_config", "qwen2_moe", "moe_intermediate_size", HUGE),
    (TALLConfig, "llm_config", "deepseek_v3", "kv_lora_rank", HUGE),
    (TALLConfig, "llm_config", "mamba", "state_size", HUGE),
    (TALLConfig, "llm_config", "gpt2", "n_positions", 10**9),
    (TALLConfig, "lr_hr_config", "marian", "decoder_vocab_size", HUGE),
    (TALLConfig, "llm_config", "qwen2", "dtype", "abc"),
    (TALLConfig, "llm_config", "qwen2", "dtype", ""),
    (TALLConfig, "llm_config", "qwen2", "dtype", NO_NUMBER),
    (LayerFusionConfig, "llm_config", "llama", "id2label", True),
    (LayerFusionConfig, "encoder_config", "xlm-roberta", "vocab_size", -1),
]
# transformers' own name of what GPT-2 calls otherwise.
STANDARD_NAMES = {"n_layer": "num_hidden_layers", "n_positions": "max_position_embeddings"}


def named(case):
    return "-".join(getattr(one, "__name__", None) or repr(one)[:30] for one in case)


@pytest.mark.parametrize("case", WRONG, ids=named)
def test_a_wrong_value_is_refused_by_its_name(case):
    kind, name, value = case
    with pytest.raises((ValueError, StrictDataclassError)) as refused:
        kind(**{name: value})
    message = str(refused.value)
    # The lowest versions let huggingface_hub check the fields that every configuration has, by an error of its own.
    if not isinstance(refused.value, ValueError):
        assert f"'{name}'" in message
        return
    assert f"`{name}`" in message
    shown = [repr(value), f"got {type(value).__name__}"] + ([f"{value:,}"] if isinstance(value, int) else [])
    assert any(one in message for one in shown)
    assert any(word in message for word in ("must be", "expected", "leaves", "has the tokens", "divisible"))


# Settings of `generate`, each with what it may not be: rows and room for each are what memory is spent on.
WRONG_SETTINGS = [
    *(("num_beams", value) for value in (10**9, 2000, -1, 2.5, "3", True, [2])),
    ("num_return_sequences", 10**6),
    ("max_length", HUGE),
    ("max_length", "x"),
    ("max_new_tokens", HUGE),
    ("encoder_no_repeat_ngram_size", 10**9),
    ("prompt_lookup_num_tokens", 10**9),
    ("suppress_tokens", [HUGE]),
    ("eos_token_id", "x"),
    ("pad_token_id", [HUGE]),
    ("decoder_start_token_id", HUGE),
    ("forced_bos_token_id", -2),
    ("forced_eos_token_id", True),
]


@pytest.mark.parametrize(("name", "value"), WRONG_SETTINGS)
def test_settings_of_a_translation_that_take_all_memory_are_refused(tiny_config, name, value):
    with pytest.raises(ValueError, match=rf"`translation_generation_config` has `{name}` .*expected"):
        tiny_config(translation_generation_config={name: value})


def test_beams_that_are_too_long_together_are_refused(tiny_config):
    with pytest.raises(ValueError, match="asks for 1,000 beams of 1,000,000 tokens"):
        tiny_config(translation_generation_config={"num_beams": 1000, "max_length": 1_000_000})
    tiny_config(translation_generation_config={"num_beams": 1, "max_length": 1_000_000})


@pytest.mark.parametrize("name", ["composed", "fused"])
@pytest.mark.parametrize("saved_light", [False, True], ids=["whole", "light"])
def test_settings_of_an_answer_that_take_all_memory_are_refused(request, name, saved_light, tmp_path):
    model, processor = request.getfixturevalue(name)()
    if saved_light:
        save_light(model, processor, tmp_path / "model")
    else:
        model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for field, value in (("num_beams", 10**9), ("max_new_tokens", HUGE), ("decoder_start_token_id", HUGE)):
        path.write_text(json.dumps({**kept, field: value}), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"`generation_config` has `{field}` .*expected"):
            load_light(tmp_path / "model") if saved_light else type(model).from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("settings", [{"num_return_sequences": 2, "num_beams": 2}, {"return_dict_in_generate": True}])
def test_settings_that_are_saved_leave_each_text_its_one_answer(fresh, settings):
    model, processor = fresh("gated")
    texts = ["דנה גרה", "יוסי"]
    translator = model.encoder.translator.generation_config
    beams = {"num_beams": settings.get("num_beams", translator.num_beams)}
    expected = model.translate(texts, processor, **beams), model.complete(texts, processor, max_words=2, **beams)
    for saved in (translator, model.generation_config):
        saved.update(**settings)
    assert (model.translate(texts, processor), model.complete(texts, processor, max_words=2, **beams)) == expected


@pytest.mark.parametrize("name", ["max_length", "max_new_tokens"])
def test_a_translation_ends_where_its_positions_do(tiny_config, composed, name):
    _, processor = composed("gated")
    never = {"pad_token_id": 86, "decoder_start_token_id": 86, "eos_token_id": None}
    model = TALLForCausalLM(tiny_config(translation_generation_config={name: 1000, **never})).eval()
    [translation] = model.translate("דנה", processor)
    assert isinstance(translation, str)
    longest = getattr(model.encoder.translator.generation_config, name)
    assert longest == model.config.lr_hr_config.max_position_embeddings == 64


# Fields that would stand in the place of what the class does.
NO_FIELDS = ("validate", "to_dict", "get_text_config", "__class__", "__dict__", "__init__")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in (TALLConfig, LayerFusionConfig) for name in NO_FIELDS),
        (TALLConfig, "validate_tall"),
        (TALLConfig, "max_target_length"),
        (LayerFusionConfig, "encoder_size"),
    ],
)
def test_what_a_configuration_does_is_no_field_of_it(kind, name):
    with pytest.raises(ValueError, match=f"`config` has a field `{name}`"):
        kind.from_dict({"model_type": kind.model_type, name: "x"})


@pytest.mark.parametrize("name", NO_FIELDS)
def test_what_a_configuration_of_a_part_does_is_no_field_of_it(name):
    with pytest.raises(ValueError, match=f"`llm_config` has a field `{name}`"):
        TALLConfig(llm_config={"model_type": "qwen2", name: "x"})


# (class, part, its fields): of a right type each, and no model can be made of them.
UNBUILT = [
    (TALLConfig, "llm_config", {"model_type": "qwen2", "hidden_act": "evil"}),
    (TALLConfig, "lr_hr_config", {"model_type": "marian", "activation_function": "evil"}),
    (TALLConfig, "hr_lr_config", {"model_type": "marian", "activation_function": "evil"}),
    (TALLConfig, "llm_config", {"model_type": "phi", "pad_token_id": 9_000_000}),
    (LayerFusionConfig, "llm_config", {"model_type": "llama", "hidden_act": "evil"}),
    (
        LayerFusionConfig,
        "llm_config",
        {"model_type": "llama", "rope_parameters": {"rope_type": "evil", "factor": 2.0}},
    ),
    (
        LayerFusionConfig,
        "llm_config",
        {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": "x"}},
    ),
    (LayerFusionConfig, "encoder_config", {"model_type": "xlm-roberta", "hidden_act": "evil"}),
]


@pytest.mark.parametrize(("kind", "part", "fields"), UNBUILT)
def test_a_part_that_cannot_be_built_is_named(kind, part, fields):
    model_class = TALLForCausalLM if kind is TALLConfig else LayerFusionForCausalLM
    # One of them is refused by the configuration already, in some versions.
    with torch.device("meta"), pytest.raises(ValueError, match=f"`{part}`.*{fields['model_type']}"):
        model_class(kind(**{part: fields}))


@pytest.mark.parametrize("value", [True, [1, True]])
def test_true_is_no_number(value):
    class Fields:
        tokens: int | list[int] | None = value

    with pytest.raises(ValueError, match="`tokens` must be of type"):
        check_types(Fields(), Fields)


@pytest.mark.parametrize("case", WRONG_PARTS, ids=named)
def test_a_wrong_size_of_a_part_is_refused_by_its_name(case):
    kind, part, model_type, name, value = case
    with pytest.raises(ValueError) as refused:
        kind(**{part: {"model_type": model_type, name: value}})
    message = str(refused.value)
    assert f"`{part}`" in message
    assert STANDARD_NAMES.get(name, name) in message or name in message
    assert str(value) in message or value is None


@pytest.mark.parametrize("model_type", [3, None, ["marian"], {}, "tall-not", "vit", ""])
@pytest.mark.parametrize(("kind", "part"), [(TALLConfig, "lr_hr_config"), (LayerFusionConfig, "encoder_config")])
def test_a_part_of_no_model_of_text_is_refused(kind, part, model_type):
    with pytest.raises(ValueError, match=f"`{part}`.*type"):
        kind(**{part: {"model_type": model_type}})


def test_a_token_outside_the_vocabulary_is_not_taken_over_from_a_part():
    llm = {"model_type": "llama", "vocab_size": 10, "pad_token_id": -1, "bos_token_id": 9, "eos_token_id": [2, 10]}
    config = LayerFusionConfig(llm_config=llm)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (None, 9, None)
    assert LayerFusionConfig.from_dict(config.to_dict()).bos_token_id == 9


def test_what_is_unknown_is_kept_and_what_is_missing_is_the_default(tmp_path):
    config = TALLConfig.from_dict({"model_type": "tall", "of_a_later_version": {"a": [1]}, "llm_config": None})
    assert config.of_a_later_version == {"a": [1]}
    assert config.llm_config.hidden_size == TALLConfig().llm_config.hidden_size


@pytest.mark.parametrize("name", ["composed", "fused"])
def test_a_hostile_config_is_refused_before_the_weights_are_read(request, name, tmp_path, monkeypatch):
    model, _ = request.getfixturevalue(name)()
    model.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    saved["llm_config"]["num_hidden_layers"] = 10**9
    (tmp_path / "config.json").write_text(json.dumps(saved), encoding="utf-8")
    monkeypatch.setattr(type(model), "__init__", lambda *args, **kwargs: pytest.fail("It was built."))
    with pytest.raises(
        ValueError, match="`llm_config` has `num_hidden_layers` 1000000000, where a whole number from 0 to 2,000"
    ):
        type(model).from_pretrained(tmp_path)


# Beside what is right: for every field some of these are of a wrong type, and some too large.
_VALUES = (True, HUGE, NO_NUMBER, "", ["a"])


@pytest.mark.parametrize("kind", [TALLConfig, LayerFusionConfig])
def test_any_change_to_a_config_is_an_error_or_a_config(kind):
    base = kind()
    saved = json.loads(base.to_json_string(use_diff=False))
    for part in (None, *kind.sub_configs):
        fields = saved.keys() | kind.__annotations__.keys() if part is None else saved[part].keys()
        for field, value in itertools.product(sorted(fields), _VALUES):
            changed = {**(saved if part is None else saved[part]), field: value}
            try:
                # The parts that are not changed are made already.
                built = {name: getattr(base, name) for name in kind.sub_configs}
                if part is not None:
                    config = kind(**built | {part: changed})
                else:
                    config = kind.from_dict({**changed, **{name: one for name, one in built.items() if name != field}})
                config.validate()
                config.to_json_string()
            except (ValueError, StrictDataclassError) as error:
                assert str(error), (part, field, value)
                continue
            # Nothing of whatever is left is of a size that no model has.
            assert value != HUGE or (part is None and field not in kind.__annotations__) or "theta" in field, (
                part,
                field,
            )


@pytest.mark.parametrize("kind", [TALLConfig, LayerFusionConfig])
def test_a_config_without_a_key_is_accepted_or_refused_by_its_name(kind):
    base = kind()
    saved = json.loads(base.to_json_string(use_diff=False))
    made = {name: getattr(base, name) for name in kind.sub_configs}
    for part in kind.sub_configs:
        for field in saved[part]:
            left = {name: value for name, value in saved[part].items() if name != field}
            try:
                kind(**made | {part: left}).validate()
            except ValueError as error:
                # The types of the layers are listed, and there are as many as the default has no more.
                assert field == "num_hidden_layers" and field in str(error), (part, field)
    for field in saved.keys() - made.keys():
        kind.from_dict({name: value for name, value in saved.items() if name != field} | made).validate()


def test_sizes_that_are_too_large_together_are_refused():
    wide = {"hidden_size": 200_000, "intermediate_size": 10**6, "num_attention_heads": 8}
    for sizes in (
        {"model_type": "qwen2", **wide, "num_hidden_layers": 2000, "layer_types": ["full_attention"] * 2000},
        {"model_type": "mixtral", **wide, "num_hidden_layers": 2, "num_local_experts": 20_000},
    ):
        with pytest.raises(ValueError, match="`llm_config` has sizes that make .* weights or more"):
            TALLConfig(llm_config=sizes)


def test_sizes_that_no_weight_has_are_refused(composed, tmp_path):
    model, _ = composed("gated")
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    saved["hr_lr_config"]["decoder_ffn_dim"] += 8
    (tmp_path / "config.json").write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(RuntimeError, match="size|shape"):
        TALLForCausalLM.from_pretrained(tmp_path)
