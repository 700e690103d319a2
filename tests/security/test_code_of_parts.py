"""Code that lies in the repository of a part is never run: not by composing, and not by a model that has its configuration."""

import contextlib
import json
import shutil

import pytest
from transformers import AutoModelForCausalLM

from tall_hf import TALLConfig, TALLForCausalLM, compose


EVIL = """
from pathlib import Path
Path({canary!r}).write_text("run")
from transformers import {base}

class Evil({base}):  # transformers marks a class that it loads so
    pass
"""


@pytest.fixture
def canary(tmp_path):
    """A file that is there once the code was run."""
    return tmp_path / "canary"


@pytest.fixture
def with_code(part, tmp_path, canary):
    """`with_code(base, **changed)` is an LLM whose folder names code of its own for everything."""

    def write(base, **changed):
        folder = shutil.copytree(part("qwen2"), tmp_path / "llm")
        (folder / "evil.py").write_text(EVIL.format(canary=str(canary), base=base), encoding="utf-8")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
        config |= {"auto_map": dict.fromkeys(names, "evil.Evil"), **changed}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        tokenizer["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        return folder

    return write


def test_a_known_type_is_loaded_by_transformers_own_classes(part_folders, with_code, canary, tmp_path):
    model, processor = compose(**{**part_folders(), "llm": with_code("Qwen2Config")})
    assert type(model.encoder.llm).__module__.startswith("transformers.models.qwen2")
    for made in (model, processor):
        made.save_pretrained(tmp_path / "tall")
    # Loaded again the configuration of the part still names the code.
    again = TALLForCausalLM.from_pretrained(tmp_path / "tall")
    assert type(again.encoder.llm).__module__.startswith("transformers.models.qwen2")
    assert not canary.exists()


def test_an_unknown_type_is_refused(part_folders, with_code, canary):
    folders = {**part_folders(), "llm": with_code("Qwen2Config", model_type="evil")}
    with pytest.raises(ValueError, match="llm can only be loaded by code of its own, which is not run here"):
        compose(**folders)
    assert not canary.exists()


def test_the_code_would_run_if_it_were_trusted(with_code, canary):
    folder = with_code("Qwen2Config", model_type="evil")
    with contextlib.suppress(Exception):  # whatever comes of it
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert canary.exists()


def test_a_configuration_that_names_a_repository_of_code_fetches_nothing(composed):
    saved = composed("gated")[0].config.to_dict()
    saved["llm_config"]["auto_map"] = {
        "AutoModel": "evil/repository--evil.Evil",
        "AutoConfig": "evil/repository--evil.Evil",
    }
    model = TALLForCausalLM(TALLConfig.from_dict(saved))
    assert type(model.encoder.llm).__module__.startswith("transformers.models.qwen2")
