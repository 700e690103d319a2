"""Broken and hostile safetensors files: an error that says so, and never a model with other weights than were saved."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tall_hf import TALLForCausalLM, load_light
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


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_file_is_refused_by_its_name(folder, way):
    path = folder / "model.safetensors"
    path.write_bytes(BROKEN[way](*parted(path.read_bytes())))
    with pytest.raises(OSError, match="weights of .*model are corrupted or incomplete") as refused:
        TALLForCausalLM.from_pretrained(folder)
    assert "Download or save them again" in str(refused.value)


def test_a_broken_light_checkpoint_is_refused_by_its_name(composed, tmp_path):
    folder = save_light(*composed("gated"), tmp_path / "light")
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(OSError, match="weights of .*light are corrupted or incomplete"):
        load_light(folder)


@pytest.mark.parametrize("shape", [(2,), (1, 1), (0,)])
def test_a_weight_of_another_shape_is_refused(folder, shape):
    path = folder / "model.safetensors"
    save_file({**load_file(path), GATE: torch.zeros(shape)}, path, {"format": "pt"})
    with pytest.raises(RuntimeError, match="size|shape"):
        TALLForCausalLM.from_pretrained(folder)


def test_a_weight_of_whole_numbers_becomes_a_float(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, GATE: torch.ones_like(weights[GATE], dtype=torch.int32)}, path, {"format": "pt"})
    model = TALLForCausalLM.from_pretrained(folder)
    assert model.encoder.gate.dtype == torch.float32
    assert model.encoder.gate.item() == 1


def test_an_index_does_not_lead_out_of_the_folder(folder, tmp_path):
    outside = tmp_path / "outside.safetensors"
    shutil.move(folder / "model.safetensors", outside)
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(outside), "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match=r"\.\./outside\.safetensors"):
        plan(folder)
