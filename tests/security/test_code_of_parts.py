"""Code that lies in the repository of a part is never run: not by composing, and not by a model that has its configuration."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tall_hf import LayerFusionConfig, TALLConfig, TALLForCausalLM, compose, compose_layer_fusion, publishing
from tall_hf.kinds import KINDS
from tall_hf.publishing.remote_code import check_code_named, code_named


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


# Loads what it is told, in a process without this package, as `trust_remote_code=True` makes everybody do.
STRANGER = """
import sys
sys.path.append(sys.argv[1])
import transformers
for loader in sys.argv[3:]:
    made = getattr(transformers, loader).from_pretrained(sys.argv[2], trust_remote_code=True)
    print(type(made).__name__, *(type(getattr(made, name)).__name__ for name in getattr(made, "get_attributes", list)()))
"""
OWN_PARTS = {"TALL": ("lr_hr", "llm", "hr_lr"), "LayerFusionForCausalLM": ("encoder", "llm")}


def loaded_by_a_stranger(folder, *loaders) -> list[str]:
    """The classes' names."""
    arguments = [sysconfig.get_path("purelib"), str(folder), *loaders]
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder.parent / "modules")}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STRANGER, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def name_code(folder, reference):
    """Let a tokenizer's folder name code."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.setdefault("auto_map", {})["AutoTokenizer"] = [reference, reference]
    path.write_text(json.dumps(config), encoding="utf-8")


def write_published(folder, to):
    """What `publish` would put on the Hub."""
    for file in publishing.plan(folder):
        path = to / file.path_in_repo
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.source if isinstance(file.source, bytes) else file.source.read_bytes())
    return to


@pytest.fixture
def reference(tmp_path, canary):
    """Code of another repository, as configurations name it."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(
        EVIL.format(canary=str(canary), base="Qwen2Tokenizer"), encoding="utf-8"
    )
    return f"{tmp_path / 'evil'}--evil.Evil"


@pytest.fixture
def make(part, part_folders):
    """`make(kind, change)` is a model and a processor of parts whose copied folders `change(folder)` has changed."""

    def made(kind, change, root):
        if kind == "TALL":
            folders = part_folders()
        else:
            folders = {"encoder": part("nllb"), "llm": part("llama"), "source_lang": "heb_Hebr"}
        for role in OWN_PARTS[kind]:
            folders[role] = shutil.copytree(folders[role], root / role)
            change(folders[role])
        return compose(**folders) if kind == "TALL" else compose_layer_fusion(**folders)

    return made


@pytest.mark.parametrize("kind", OWN_PARTS)
def test_who_trusts_a_model_runs_no_code_of_its_parts(make, reference, canary, tmp_path, kind):
    model, processor = make(kind, lambda folder: name_code(folder, reference), tmp_path / "parts")
    expected = [type(getattr(processor, name)).__name__ for name in processor.get_attributes()]
    folder = publishing.save(model, processor, tmp_path / "tall")
    assert "evil" not in "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*config.json"))
    found = loaded_by_a_stranger(folder, "AutoTokenizer", "AutoProcessor")
    assert found == [expected[0], type(processor).__name__, *expected]
    assert not canary.exists()


@pytest.mark.parametrize("kind", OWN_PARTS)
def test_a_model_that_was_saved_with_code_of_its_parts_is_published_without(make, reference, canary, tmp_path, kind):
    model, processor = make(kind, lambda folder: None, tmp_path / "parts")
    expected = [type(getattr(processor, name)).__name__ for name in processor.get_attributes()]
    folder = publishing.save(model, processor, tmp_path / "tall")
    for inside in ("", *(name for name in processor.get_attributes() if name != "tokenizer")):
        name_code(folder / inside, reference)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["llm_config"]["auto_map"] = config["auto_map"]["AutoTokenizer"] = reference
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    # Whoever has it like this: the model's own code passes over what its tokenizers name.
    assert loaded_by_a_stranger(folder, "AutoProcessor") == [type(processor).__name__, *expected]
    assert not canary.exists()
    published = write_published(folder, tmp_path / "published")
    assert "evil" not in "".join(path.read_text(encoding="utf-8") for path in published.rglob("*config.json"))
    found = loaded_by_a_stranger(published, "AutoTokenizer", "AutoProcessor")
    assert found == [expected[0], type(processor).__name__, *expected]
    assert not canary.exists()


def test_what_is_not_cleaned_is_not_published(composed, reference, tmp_path):
    folder = publishing.save(*composed("gated"), tmp_path / "tall")
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "inside": [{"auto_map": {"AutoModel": reference}}]}), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"generation_config\.json names the code .*--evil\.Evil', which is not tall-hf's"
    ):
        publishing.plan(folder)


def test_all_that_names_code_is_found():
    named = {
        "auto_map": ["a.A", None],
        "custom_pipelines": {"text": {"impl": "b.B", "pt": ["AutoModel"]}, "other": "c.C"},
        "inside": {"auto_map": {"AutoTokenizer": ["d.D", "e/r--d.D"], "AutoModel": "f.F"}, "text": "g--g.G"},
    }
    assert sorted(code_named(named)) == ["a.A", "b.B", "c.C", "d.D", "e/r--d.D", "f.F"]
    for kind in KINDS:
        check_code_named("config.json", kind.config_class().to_dict(), kind)


@pytest.mark.parametrize(("kind", "part_name"), [(TALLConfig, "llm_config"), (LayerFusionConfig, "encoder_config")])
def test_a_configuration_of_a_part_names_no_code(kind, part_name):
    saved = kind().to_dict()
    saved[part_name] |= {"auto_map": {"AutoModel": "evil.Evil"}, "custom_pipelines": {"x": {"impl": "evil.Evil"}}}
    config = kind.from_dict(saved)
    assert "evil" not in config.to_json_string()
    given = getattr(config, part_name)
    given.auto_map = {"AutoModel": "evil.Evil"}
    assert "evil" not in kind(**{part_name: given}).to_json_string()
    assert given.auto_map  # the caller's own is left as it is


def test_the_code_of_a_tokenizer_would_run_if_it_were_trusted(part, reference, canary, tmp_path):
    folder = shutil.copytree(part("qwen2"), tmp_path / "llm")
    name_code(folder, reference)
    with contextlib.suppress(Exception):  # whatever comes of it
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert canary.exists()
