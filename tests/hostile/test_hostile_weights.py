"""Broken and hostile safetensors files: an error that says so, and never a model with other weights than were saved."""

import json
import re
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tall_hf import TALLConfig, TALLForCausalLM, load_light
from tall_hf.publishing import plan
from tall_hf.training.light import WEIGHTS_NAME, save_light


GATE = "encoder.gate"


@pytest.fixture(scope="module")
def saved(composed, tmp_path_factory):
    """A saved TALL; not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    composed("gated")[0].save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it, to be broken."""
    return shutil.copytree(saved, tmp_path / "model")


def parted(content: bytes) -> tuple[dict, bytes]:
    """The header and the numbers of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: dict, numbers: bytes) -> bytes:
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + numbers


def overlapping(header, numbers):
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    return joined(header, numbers)


def beyond_the_end(header, numbers):
    last = max((one for name, one in header.items() if name != "__metadata__"), key=lambda one: one["data_offsets"][1])
    last["data_offsets"][1] += 2**40
    return joined(header, numbers)


def backwards(header, numbers):
    header[GATE]["data_offsets"].reverse()
    return joined(header, numbers)


def unknown_dtype(header, numbers):
    header[GATE]["dtype"] = "PICKLE"
    return joined(header, numbers)


def wider_dtype(header, numbers):
    header[GATE]["dtype"] = "F64"
    return joined(header, numbers)


def huge_shape(header, numbers):
    header[GATE]["shape"] = [2**31, 2**31]
    return joined(header, numbers)


def negative_shape(header, numbers):
    header[GATE]["shape"] = [-1]
    return joined(header, numbers)


BROKEN = {
    "empty": lambda header, numbers: b"",
    "half a length": lambda header, numbers: b"\x08\0\0",
    "a length beyond the file": lambda header, numbers: (2**62).to_bytes(8, "little") + b"{}",
    "no JSON": lambda header, numbers: (8).to_bytes(8, "little") + b"\x80\x04cos\nX}",
    "half a header": lambda header, numbers: joined(header, numbers)[:200],
    "half of the numbers": lambda header, numbers: joined(header, numbers[: len(numbers) // 2]),
    "more numbers": lambda header, numbers: joined(header, numbers + bytes(64)),
    "overlapping": overlapping,
    "beyond the end": beyond_the_end,
    "backwards": backwards,
    "unknown dtype": unknown_dtype,
    "wider dtype": wider_dtype,
    "huge shape": huge_shape,
    "negative shape": negative_shape,
    "a list": lambda header, numbers: joined([], numbers),
}


@pytest.fixture
def unread(monkeypatch):
    """A model's weights are not to be read."""
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", lambda *args, **kwargs: pytest.fail("It was read."))


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_file_is_refused_by_its_name(folder, unread, way):
    path = folder / "model.safetensors"
    path.write_bytes(BROKEN[way](*parted(path.read_bytes())))
    with pytest.raises(OSError, match="weights of .*model are corrupted or incomplete") as refused:
        TALLForCausalLM.from_pretrained(folder)
    assert "Download or save them again" in str(refused.value)


def test_a_broken_file_of_a_layer_fusion_is_refused_too(request, fused, tmp_path):
    model, _ = fused()
    request.getfixturevalue("unread")  # which what composes the model must not have yet
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(overlapping(*parted(path.read_bytes())))
    with pytest.raises(OSError, match="weights of .*model are corrupted or incomplete"):
        type(model).from_pretrained(tmp_path / "model")


@settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_any_change_to_the_header_is_refused_or_told_and_changes_no_other_weight(composed, folder, place, byte, cut):
    """A byte of the header is another one, or the file ends there."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    at = int(place * (8 + int.from_bytes(whole[:8], "little")))
    path.write_bytes(whole[:at] if cut else whole[:at] + bytes([byte]) + whole[at + 1 :])
    try:
        model, info = TALLForCausalLM.from_pretrained(folder, output_loading_info=True)
    except (OSError, RuntimeError) as error:
        assert re.search("are corrupted|by the configuration|but the files hold", str(error))
    else:
        # Another letter of a weight's name: transformers tells of it and begins that weight anew.
        new = info["missing_keys"]
        assert bool(new) == bool(info["unexpected_keys"])
        for name, weight in composed("gated")[0].state_dict().items():
            assert name in new or torch.equal(model.state_dict()[name], weight), (at, byte)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("way", ["half a header", "half of the numbers", "overlapping", "huge shape"])
def test_a_broken_light_checkpoint_is_refused_by_its_name(composed, tmp_path, way):
    folder = save_light(*composed("gated"), tmp_path / "light")
    path = folder / WEIGHTS_NAME
    path.write_bytes(BROKEN[way](*parted(path.read_bytes())))
    with pytest.raises(OSError, match="weights of .*light are corrupted or incomplete"):
        load_light(folder)


@pytest.mark.parametrize("shape", [(2,), (1, 1), (0,)])
def test_a_weight_of_another_shape_in_a_light_checkpoint_is_refused(composed, tmp_path, shape):
    folder = save_light(*composed("gated"), tmp_path / "light")
    path = folder / WEIGHTS_NAME
    save_file({**load_file(path), GATE: torch.zeros(shape)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="light do not fit this model: (?s:.*)size mismatch for encoder.gate"):
        load_light(folder)


@pytest.mark.parametrize("shape", [(2,), (1, 1), (0,)])
def test_a_weight_of_another_shape_is_refused(folder, shape):
    path = folder / "model.safetensors"
    save_file({**load_file(path), GATE: torch.zeros(shape)}, path, {"format": "pt"})
    with pytest.raises(RuntimeError, match="size|shape"):
        TALLForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("dtype", ["I32", "U32"])
@pytest.mark.parametrize("which", ["one", "all"])
def test_numbers_of_no_floating_type_are_refused_before_they_are_read(folder, unread, dtype, which):
    path = folder / "model.safetensors"
    header, numbers = parted(path.read_bytes())
    names = [name for name in header if name != "__metadata__"] if which == "all" else [GATE]
    for name in names:  # as wide as the F32 that they are
        header[name]["dtype"] = dtype
    path.write_bytes(joined(header, numbers))
    with pytest.raises(OSError, match="weights .*model.* are corrupted"):
        TALLForCausalLM.from_pretrained(folder)


def test_a_light_checkpoint_of_whole_numbers_is_refused(composed, tmp_path):
    folder = save_light(*composed("gated"), tmp_path / "light")
    header, numbers = parted((folder / WEIGHTS_NAME).read_bytes())
    header[GATE]["dtype"] = "I32"
    (folder / WEIGHTS_NAME).write_bytes(joined(header, numbers))
    with pytest.raises(OSError, match="weights of .*light are corrupted: encoder.gate is of type torch.int32"):
        load_light(folder)


def test_sizes_are_compared_before_memory_is_taken(folder, monkeypatch):
    path = folder / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", lambda *args, **kwargs: pytest.fail("It was read."))
    for part, name, value in (
        ("hr_lr_config", "decoder_ffn_dim", 1_000_000),
        ("llm_config", "vocab_size", 10_000_000),
        ("llm_config", "intermediate_size", 1_000_000),
    ):
        path.write_text(json.dumps({**saved, part: {**saved[part], name: value}}), encoding="utf-8")
        with pytest.raises(RuntimeError, match="has the shape .* by the configuration"):
            TALLForCausalLM.from_pretrained(folder)
    layers = {"num_hidden_layers": 100, "layer_types": ["full_attention"] * 100}
    wide = {**saved["llm_config"], **layers, "intermediate_size": 200_000}
    path.write_text(json.dumps({**saved, "llm_config": wide}), encoding="utf-8")
    kept, numbers = parted((folder / "model.safetensors").read_bytes())
    kept = {name: one for name, one in kept.items() if name == GATE}
    start, end = kept[GATE]["data_offsets"]
    kept[GATE]["data_offsets"] = [0, end - start]
    (folder / "model.safetensors").write_bytes(joined(kept, numbers[start:end]))
    with pytest.raises(RuntimeError, match="describes a model of .* weights, but the files hold 1:"):
        TALLForCausalLM.from_pretrained(folder)


def test_positions_that_are_computed_count_too(composed, tmp_path, monkeypatch):
    """GPT-J keeps a table of them that no file has: of any size, by the configuration."""
    fields = {"model_type": "gptj", "vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}
    parts = {**composed("gated")[0].config.to_dict(), "llm_config": {**fields, "n_positions": 80}}
    TALLForCausalLM(TALLConfig.from_dict(parts)).save_pretrained(tmp_path)
    TALLForCausalLM.from_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["llm_config"]["n_positions"] = 199_999_999
    path.write_text(json.dumps(saved), encoding="utf-8")
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", lambda *args, **kwargs: pytest.fail("It was read."))
    with pytest.raises(RuntimeError, match="describes a model of .* weights, but the files hold"):
        TALLForCausalLM.from_pretrained(tmp_path)


def test_to_call_weights_quantized_takes_no_memory(folder, monkeypatch):
    path = folder / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["quantization_config"] = {"quant_method": "fp8"}
    path.write_text(json.dumps(saved), encoding="utf-8")
    TALLForCausalLM.from_pretrained(folder)
    saved["hr_lr_config"]["decoder_ffn_dim"] = 1_000_000
    path.write_text(json.dumps(saved), encoding="utf-8")
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", lambda *args, **kwargs: pytest.fail("It was read."))
    with pytest.raises(RuntimeError, match="describes a model of .* weights, but the files hold"):
        TALLForCausalLM.from_pretrained(folder)


def test_weights_in_several_files_and_of_a_subfolder_are_compared_too(composed, tmp_path):
    model, _ = composed("gated")
    model.save_pretrained(tmp_path / "model", max_shard_size="100KB")
    assert len(list((tmp_path / "model").glob("model-*-of-*.safetensors"))) > 1
    TALLForCausalLM.from_pretrained(tmp_path, subfolder="model")
    path = next(one for one in (tmp_path / "model").glob("*.safetensors") if GATE in load_file(one))
    weights = load_file(path)
    save_file({**weights, GATE: weights[GATE].int()}, path, {"format": "pt"})
    with pytest.raises(OSError, match="encoder.gate is of type torch.int32"):
        TALLForCausalLM.from_pretrained(tmp_path, subfolder="model")


INDEXES = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "3",
    "no UTF-8": b"\xff\xfe",
    "empty": json.dumps({"metadata": {}, "weight_map": {}}),
    "no map": json.dumps({"metadata": {}}),
    "no metadata": json.dumps({"weight_map": {GATE: "model-1-of-1.safetensors"}}),
    **{
        f"a map {one!r}": json.dumps({"metadata": {}, "weight_map": one})
        for one in ("x", 3, [], {GATE: 3}, {GATE: None})
    },
}


@pytest.mark.parametrize("way", INDEXES)
def test_a_malformed_index_is_refused_by_its_name(folder, way):
    (folder / "model.safetensors").unlink()
    content = INDEXES[way]
    content = content if isinstance(content, bytes) else content.encode()
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(OSError, match=r"model\.safetensors\.index\.json of .*model is damaged"):
        TALLForCausalLM.from_pretrained(folder)


def test_an_index_does_not_lead_out_of_the_folder(folder, tmp_path):
    outside = tmp_path / "outside.safetensors"
    shutil.move(folder / "model.safetensors", outside)
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(outside), "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    for read in (plan, TALLForCausalLM.from_pretrained):
        with pytest.raises(ValueError, match=r"\.\./outside\.safetensors"):
            read(folder)
    index["weight_map"] = dict.fromkeys(index["weight_map"], "weights.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match=r"names 'weights\.bin', which is no file of weights beside it"):
        TALLForCausalLM.from_pretrained(folder)
