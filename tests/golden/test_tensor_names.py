"""Names, dtypes and shapes of what every choice of the switches saves, as tests/golden/tensors.json has them: none may change.

    python -m pytest -p no:xdist tests/golden/test_tensor_names.py    # with TALL_WRITE_TENSORS=1 it writes the file first

The golden checkpoints have the weights of one choice; here are all of them, without weights. A new choice is a new entry.
"""

import json
import os
from pathlib import Path

import parts
import pytest
from safetensors import safe_open
from transformers import AutoConfig

from tall_hf import LayerFusionConfig, LayerFusionForCausalLM, TALLConfig, TALLForCausalLM
from tall_hf.modeling.configuration_layer_fusion import MAPPING_TYPES
from tall_hf.modeling.configuration_tall import ALIGNMENT_TYPES, SOURCE_BRIDGES
from tall_hf.modeling.part_configs_tall import SOURCE_FUSIONS


SAVED = Path(__file__).with_name("tensors.json")
# These are told whole, the others by what differs.
VOCABULARY = (
    512  # more than any tokenizer of the tests has learned; how many those are depends on sentencepiece's version
)
PLAIN = {"tall": {"source_bridge": "gated"}, "layer_fusion": {"source_fusion": "last"}}
CHOICES = [
    *[("tall", {"source_bridge": bridge}) for bridge in SOURCE_BRIDGES],
    *[("tall", {"alignment_type": name}) for name in ALIGNMENT_TYPES],
    *[("tall", {"source_fusion": fusion}) for fusion in SOURCE_FUSIONS],
    *[("tall", {"translator": translator}) for translator in parts.TRANSLATORS],
    *[("layer_fusion", {"source_fusion": fusion}) for fusion in SOURCE_FUSIONS],
    *[("layer_fusion", {"mapping_type": mapping}) for mapping in MAPPING_TYPES],
]


@pytest.fixture
def tensors(tiny_config, part, tmp_path):
    """`tensors(kind, switches)`: {name: "dtype shape"} of the file that such a model is saved in."""

    def of(kind, switches):
        if kind == "tall":
            switches = {"source_bridge": "gated", **switches}
            plain = tiny_config(**{name: value for name, value in switches.items() if name == "translator"})
            switches = {name: value for name, value in switches.items() if name != "translator"}
            made_of = {name: getattr(plain, name) for name in ("lr_hr_config", "llm_config", "hr_lr_config")}
            if switches.get("alignment_type") == "identity":  # the widths have to fit as they are
                plain.llm_config.hidden_size = plain.lr_hr_config.d_model = plain.hr_lr_config.d_model
            model_class, config_class = TALLForCausalLM, TALLConfig
        else:
            switches = {"source_fusion": "last", **switches}
            made_of = {"encoder_config": part("nllb"), "llm_config": part("llama")}
            made_of = {name: AutoConfig.from_pretrained(folder) for name, folder in made_of.items()}
            model_class, config_class = LayerFusionForCausalLM, LayerFusionConfig
        for config in made_of.values():
            config.vocab_size = VOCABULARY
            if hasattr(config, "decoder_vocab_size"):
                config.decoder_vocab_size = VOCABULARY
        model = model_class(config_class(**made_of, **switches))
        model.save_pretrained(tmp_path)
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return {name: f"{one.get_dtype()} {'x'.join(map(str, one.get_shape()))}" for name, one in slices.items()}

    return of


def differing(found, plain):
    """What has another form than in `plain`, and None for what is not there."""
    return {name: found.get(name) for name in sorted({*found, *plain}) if found.get(name) != plain.get(name)}


@pytest.fixture
def plain(tensors):
    return {kind: tensors(kind, switches) for kind, switches in PLAIN.items()}


def test_every_choice_saves_the_tensors_that_it_did(tensors, plain):
    found = dict(plain)
    for kind, switches in CHOICES:
        name = ", ".join(f"{switch}={value}" for switch, value in switches.items())
        found[f"{kind}, {name}"] = differing(tensors(kind, switches), plain[kind])
    if os.environ.get("TALL_WRITE_TENSORS"):
        SAVED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    saved = json.loads(SAVED.read_text(encoding="utf-8"))
    assert found.keys() == saved.keys()
    for choice, expected in saved.items():
        assert differing(found[choice], expected) == {}, choice


def test_a_changed_name_or_shape_would_be_noticed():
    saved = {"gate": "F32 1", "norm": "F32 8"}
    assert differing({"gates": "F32 1", "norm": "F32 8"}, saved) == {"gate": None, "gates": "F32 1"}
    assert differing({"gate": "F16 1", "norm": "F32 8x1"}, saved) == {"gate": "F16 1", "norm": "F32 8x1"}
