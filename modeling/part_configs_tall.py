"""What the configurations of both models share: those of their parts, and the checks before a model is built of one."""

import copy
import functools
from typing import get_args, get_origin

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig


SOURCE_FUSIONS = ("last", "global_softmax", "token_softmax")
TRANSLATOR_TYPES = ("marian", "m2m_100", "mbart")

# More than any model has. Beyond these a configuration is broken or hostile, and to make it or its model would take all memory,
# or never end, before the weights are looked at.
_LARGEST = {
    "vocab_size": 10_000_000,
    **dict.fromkeys(("hidden_size", "d_model", "word_embed_proj_dim", "head_dim", "d_kv"), 200_000),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner"), 1_000_000
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers"), 2_000
    ),
    **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 2_000),
    "num_key_value_heads": 2_000,
    "max_position_embeddings": 200_000_000,
    "num_labels": 1_000_000,
}
# Fields that have no line above, by a word in their name; the first word that is in it counts.
_LARGEST_BY_WORD = {
    **dict.fromkeys(("theta", "base"), 10**15),  # of rotary positions
    "vocab": 10_000_000,
    "token": 10_000_000,
    "position": 200_000_000,
    "window": 200_000_000,
    "length": 200_000_000,
    "ctx": 200_000_000,
    "moe_intermediate": 1_000_000,
    "dim": 200_000,
    "rank": 200_000,
    "size": 1_000_000,
    "expert": 20_000,
    "head": 2_000,
    "layer": 2_000,
    "bucket": 10_000,
}
_LARGEST_OF_ALL = 200_000_000
# Layers, experts and vocabulary with their widths: more weights than any model has.
_MOST_WEIGHTS = 10**13
# Translators keep a vector for each position; LLMs mostly turn theirs.
_MOST_POSITIONS_OF_TRANSLATORS = 100_000

# What a configuration may call the dtype of its weights.
_DTYPES = ("bfloat16", "double", "float", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "half")
# Fields that name code to run.
_CODE = ("auto_map", "custom_pipelines")

_TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")

# Settings of `generate`: more than anybody asks for. Each beam is a row that is computed, and room is kept for the longest
# answer of each.
_MOST_TOKENS_OF_BEAMS = 100_000_000
_LARGEST_OF_GENERATION = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), 1_000),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "max_matching_ngram_size"), 1_000),
    **dict.fromkeys(("max_length", "max_new_tokens", "min_length", "min_new_tokens"), _MOST_TOKENS_OF_BEAMS),
}


def build_part(name, part, default):
    """The configuration of a part: a copy of one, or made of a dict or of the `default` dict."""
    # A config object is copied: sub-models write to theirs (dtype, attention), and callers may share one object.
    if isinstance(part, PreTrainedConfig):
        part = copy.deepcopy(part)
        _forget_code(part)
        return part
    if part is None:
        part = default
    if not isinstance(part, dict):
        raise ValueError(f"`{name}` must be a configuration or a dict, got {type(part).__name__}.")
    fields = {key: value for key, value in part.items() if key not in ("model_type", *_CODE)}
    model_type = part.get("model_type", default["model_type"])
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"`{name}` has `model_type` {model_type!r}, which this version of transformers does not know."
        )
    config_class = CONFIG_MAPPING[model_type]
    check_names(name, fields, config_class)
    check_fields(name, fields, config_class.attribute_map)
    try:
        built = config_class(**fields)
    except Exception as error:  # each type has its own way to fail on a value it did not expect
        raise ValueError(f"`{name}` is no configuration of type {model_type!r}: {error}") from error
    _forget_code(built)
    return built


def _forget_code(config):
    """Take from a configuration, and those inside of it, what names code: parts are transformers' own classes."""
    for name in _CODE:
        vars(config).pop(name, None)
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            _forget_code(value)


def check_choice(name, value, choices):
    """ValueError for a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_deviation(name, value):
    """ValueError for what is no standard deviation to draw weights with."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
        raise ValueError(f"`{name}` must be a number of at least 0 and at most 1000, got {value!r}.")


def check_positive(name, value):
    """ValueError for what is neither None nor a size that a model may have."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"`{name}` must be a positive integer or None, got {value!r}.")
    if value is not None and value > _LARGEST["intermediate_size"]:
        raise ValueError(f"`{name}` must be at most {_LARGEST['intermediate_size']:,}, got {value:,}.")


def check_types(config, config_class):
    """ValueError for a field that `config_class` declares and that is not of its type."""
    for name, declared in config_class.__annotations__.items():
        value = getattr(config, name)
        if not _is_of_type(value, declared):
            expected = declared.__name__ if isinstance(declared, type) else declared
            raise ValueError(f"`{name}` must be of type {expected}, got {value!r}.")


def _is_of_type(value, declared):
    """Whether a value is of a declared type: a class, a list or dict of such, or one of several."""
    kind, inner = get_origin(declared), get_args(declared)
    if kind is list:
        return isinstance(value, list) and all(_is_of_type(item, inner[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(
            _is_of_type(key, inner[0]) and _is_of_type(item, inner[1]) for key, item in value.items()
        )
    if inner:
        return any(_is_of_type(value, one) for one in inner)
    # Python counts True among the integers.
    return isinstance(value, declared) and (declared is bool or not isinstance(value, bool))


def check_part(name, part):
    """ValueError for a part that is no language model, or has a size that no model has."""
    largest_sizes = dict(_LARGEST)
    if part.model_type in TRANSLATOR_TYPES:
        largest_sizes["max_position_embeddings"] = _MOST_POSITIONS_OF_TRANSLATORS
    config = part.get_text_config()
    if getattr(config, "vocab_size", None) is None:
        raise ValueError(
            f"`{name}` is of type {part.model_type!r} and has no `vocab_size`; it must be a model of text."
        )
    for field, largest in largest_sizes.items():
        _check_size(name, field, getattr(config, field, None), largest)
    for one in {id(part): part, id(config): config}.values():
        for field, value in vars(one).items():
            _check_number(name, field, value)
        check_labels_and_dtype(name, one.id2label, one.dtype)
    _check_weights(name, config)


def check_names(name, fields, config_class):
    """ValueError for a field that would take the place of what the configuration's class does."""
    for field in fields:
        if str(field).startswith("__") or callable(getattr(config_class, str(field), None)):
            raise ValueError(f"`{name}` has a field `{field}`, which is no field of a configuration. Take it out.")


def check_own_fields(fields, config_class):
    """ValueError for what a composite's configuration cannot have, in the fields that are not declared in its class."""
    check_names("config", fields, config_class)
    computed = [field for field in fields if isinstance(getattr(config_class, field, None), property)]
    if computed := [field for field in computed if getattr(config_class, field).fset is None]:
        raise ValueError(f"`config` has a field `{computed[0]}`, which is computed of the others. Take it out.")
    check_fields("config", fields, config_class.attribute_map)
    quantization = fields.get("quantization_config")
    if quantization is not None and not isinstance(quantization, dict) and not hasattr(quantization, "to_dict"):
        raise ValueError(f"`config` has `quantization_config` {quantization!r}, where a dict is expected.")


def check_fields(name, fields, attribute_map):
    """ValueError for a size that no model has, in the dict that a configuration is to be made of."""
    standard = {own: field for field, own in attribute_map.items()}
    for own, value in fields.items():
        if isinstance(value, dict):
            check_fields(name, value, attribute_map)
        elif (largest := _LARGEST.get(standard.get(own, own))) is not None:
            _check_size(name, own, value, largest)
        else:
            _check_number(name, own, value)
    check_labels_and_dtype(name, fields.get("id2label"), fields.get("dtype"))


def check_labels_and_dtype(name, id2label, dtype):
    """ValueError for two fields of every configuration that transformers reads before it checks them."""
    if id2label is not None and not isinstance(id2label, dict):
        raise ValueError(f"`{name}` has `id2label` {id2label!r}, where a dict is expected: it must be a dict.")
    for one in dtype.values() if isinstance(dtype, dict) else [dtype]:
        if one is not None and not isinstance(one, torch.dtype) and (not isinstance(one, str) or one not in _DTYPES):
            raise ValueError(
                f"`{name}` has `dtype` {dtype!r}, where the name of a floating-point dtype of torch is expected."
            )


def _check_number(name, field, value):
    """ValueError for a whole number, alone or in a list, that is beyond what its field's name may stand for."""
    for one in value if isinstance(value, list | tuple) else [value]:
        largest = _LARGEST.get(field)
        if largest is None:
            largest = next((most for word, most in _LARGEST_BY_WORD.items() if word in str(field)), _LARGEST_OF_ALL)
        if isinstance(one, int) and abs(one) > largest:
            raise ValueError(
                f"`{name}` has `{field}` {value!r}, where whole numbers of at most {largest:,} are expected."
            )


def _check_weights(name, config):
    """ValueError for sizes, each of which a model may have, that make more weights than any model has."""
    get = functools.partial(_most, config)
    width = max(get("hidden_size"), get("d_model"))
    layers = get("num_hidden_layers") + get("encoder_layers") + get("decoder_layers")
    experts = max(1, get("num_local_experts"), get("num_experts"), get("n_routed_experts"))
    inner = [get(field) for field in ("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "d_ff")]
    inner = (get("moe_intermediate_size") or max(inner)) if experts > 1 else max(inner)
    weights = layers * width * (2 * width + 2 * inner * experts) + width * max(1, get("vocab_size"))
    if weights > _MOST_WEIGHTS:
        raise ValueError(
            f"`{name}` has sizes that make {weights:,} weights or more, where at most {_MOST_WEIGHTS:,} are expected."
        )


def _most(config, field):
    value = getattr(config, field, None)
    value = (
        max((one for one in value if isinstance(one, int)), default=0) if isinstance(value, list | tuple) else value
    )
    return value if isinstance(value, int) else 0


def _check_size(name, field, value, largest):
    # Some LLMs have sizes of their own for each layer; a model without its layers is a control of `compose`.
    if value is None or isinstance(value, list | tuple):
        return
    smallest = 0 if "layer" in field else 1
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        raise ValueError(
            f"`{name}` has `{field}` {value!r}, where a whole number from {smallest} to {largest:,} is expected."
        )


def check_generation(name, settings, vocab_size):
    """ValueError for settings of `generate`, a dict, that would take all memory, or name a token that there is not.

    Args:
        name: of what holds them, for the message.
        settings: by their names; None is what is left to `generate`.
        vocab_size: tokens that the model writes with.
    """
    for field, value in settings.items():
        if value is None:
            continue
        if field.endswith("_token_id"):
            if not _are_tokens(value, vocab_size, unused=-1):
                raise ValueError(
                    f"`{name}` has `{field}` {value!r}, where tokens from 0 to {vocab_size - 1} are expected."
                )
            continue
        largest = _LARGEST_OF_GENERATION.get(field)
        if largest is None:
            _check_number(name, field, value)
        elif type(value) is not int or not 0 <= value <= largest:
            raise ValueError(
                f"`{name}` has `{field}` {value!r}, where a whole number from 0 to {largest:,} is expected."
            )
    rows = max(settings.get("num_beams") or 1, settings.get("num_return_sequences") or 1)
    length = max(settings.get("max_length") or 0, settings.get("max_new_tokens") or 0)
    if rows > 1 and rows * length > _MOST_TOKENS_OF_BEAMS:
        raise ValueError(
            f"`{name}` asks for {rows:,} beams of {length:,} tokens, where at most {_MOST_TOKENS_OF_BEAMS:,} tokens in all are "
            "expected."
        )


def inherit_token_ids(config, part):
    """Take the special tokens that `config` leaves open from the part that writes; what is no token of that is none."""
    size = getattr(part.get_text_config(), "vocab_size", None) or 0
    for name in _TOKEN_IDS:
        if getattr(config, name, 0) is None and _are_tokens(found := getattr(part, name, None), size):
            setattr(config, name, found)


def check_token_ids(config, vocab_size):
    """ValueError for a special token that is not in the vocabulary: it would be looked up in the embeddings."""
    for name in _TOKEN_IDS:
        value = getattr(config, name, None)
        if value is not None and not _are_tokens(value, vocab_size):
            raise ValueError(
                f"`{name}` is {value!r}, but the vocabulary that the model writes with has the tokens 0 to {vocab_size - 1}."
            )


def _are_tokens(value, vocab_size, unused=0):
    values = value if isinstance(value, list) else [value]
    return all(type(one) is int and unused <= one < vocab_size for one in values)
