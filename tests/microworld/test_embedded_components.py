"""The shipped components: small, safe, real checkpoints of the real classes that know what they should and no more."""

import itertools
import json
import os

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    MarianMTModel,
    MarianTokenizer,
    Qwen2ForCausalLM,
)

from tall_hf.microworld import COMPONENTS, World, component_path
from tall_hf.microworld.architectures import qwen2_tokenizer
from tall_hf.microworld.build import Recipe, build, exact_match, is_determined, knowledge


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def questions(world):
    return [record for record in world.records()[1] if record.entity % 3 == 0]


def load(name):
    auto_class = AutoModelForCausalLM if name.startswith("llm") else AutoModelForSeq2SeqLM
    folder = component_path(name)
    model = auto_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_all_four_take_at_most_ten_megabytes():
    files = [path for path in component_path("llm").parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10_000_000


@pytest.mark.parametrize("name", COMPONENTS)
def test_weights_are_bfloat16_safetensors_and_nothing_is_pickled(name):
    folder = component_path(name)
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".spm"}
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


@pytest.mark.parametrize("name", COMPONENTS)
def test_no_file_names_a_place_on_some_machine(name):
    for path in component_path(name).glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content.get("_name_or_path", "") == ""
        if path.name != "vocab.json" and "vocab" not in content.get("model", {}):
            assert os.sep not in path.read_text(encoding="utf-8").replace("</s>", "").replace(r"\/", "")


@pytest.mark.parametrize("name", COMPONENTS)
def test_they_load_offline_as_the_real_classes(name):
    model, tokenizer = load(name)
    if name.startswith("llm"):
        assert type(model) is Qwen2ForCausalLM and type(tokenizer).__name__.startswith("Qwen2Tokenizer")
    else:
        assert type(model) is MarianMTModel and type(tokenizer) is MarianTokenizer
    assert len(tokenizer) <= model.config.vocab_size
    assert tokenizer.pad_token_id is not None and model.config.pad_token_id == tokenizer.pad_token_id


def test_hebrew_to_english_is_exact_on_held_out_people(questions):
    whole = [(record.text, record.english) for record in questions]
    truncated = [(record.truncated, record.english_truncated) for record in questions]
    assert exact_match(*load("lr_hr"), whole + truncated) > 0.98


def test_english_to_hebrew_is_exact_on_held_out_people(questions):
    pairs = [(record.english, record.text) for record in questions if is_determined(record)]
    assert len(pairs) > 50 and exact_match(*load("hr_lr"), pairs) > 0.98


def test_translators_are_exact_on_fresh_sentences(world):
    pairs = list(itertools.islice(world.parallel_text(seed=12345), 150))
    assert exact_match(*load("lr_hr"), [(pair.hebrew, pair.english) for pair in pairs]) > 0.98
    determined = [(pair.english, pair.hebrew) for pair in pairs if is_determined(pair)]
    assert exact_match(*load("hr_lr"), determined) > 0.95


@pytest.mark.parametrize(("name", "is_permuted"), [("llm", False), ("llm_permuted", True)])
def test_each_language_model_knows_its_facts_and_not_the_others(name, is_permuted):
    model, tokenizer = load(name)
    for permuted in (False, True):
        world = World(permuted=permuted)
        records = [record for record in world.records()[1] if record.entity % 3 == 0]
        prompts = [record.english_explicit_prompt for record in records]
        known = knowledge(model, tokenizer, prompts, [record.english_word for record in records])
        assert known > 0.97 if permuted == is_permuted else known < 0.05


def test_the_permuted_model_keeps_all_but_the_feed_forward_layers():
    first, second = (load(name)[0].state_dict() for name in ("llm", "llm_permuted"))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed and all(".mlp." in name for name in changed)


def test_byte_level_tokenizer_reads_any_text():
    tokenizer = qwen2_tokenizer(["Dana lives in Haifa", "Yossi lives in Acre"], vocab_size=270)
    for text in ("Dana lives in Haifa", "שלום, world! 😀", " a  b"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_build_refuses_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="something else than components"):
        build(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow
def test_the_command_writes_the_same_bits_twice(tmp_path):
    tiny = Recipe(sentences=2000, translator_steps=3, llm_steps=3, permuted_steps=3, batch_size=16, test_sentences=10)
    for name, jobs in (("one", 1), ("two", 2)):
        build(tmp_path / name, seed=3, recipe=tiny, jobs=jobs)
    for component in COMPONENTS:
        for path in (tmp_path / "one" / component).iterdir():
            assert path.read_bytes() == (tmp_path / "two" / component / path.name).read_bytes(), path.name
    build(tmp_path / "one", seed=3, recipe=tiny)  # replaces its own result
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
