"""The shipped components: small, safe, real checkpoints of the real classes that know what they should and no more."""

import itertools
import json
import os
import tempfile

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

from tall_hf.microworld import COMPONENTS, MULTILINGUAL, World, component_path
from tall_hf.microworld.architectures import marian_tokenizer, qwen2_tokenizer, train_sentencepiece
from tall_hf.microworld.build import build
from tall_hf.microworld.build_llms import take_llms
from tall_hf.microworld.build_settings import BuildSettings
from tall_hf.microworld.build_translators import is_determined, multilingual_text
from tall_hf.microworld.training import exact_match, knowledge


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
    assert exact_match(*load("lr_hr"), [(pair.text, pair.english) for pair in pairs]) > 0.98
    determined = [(pair.english, pair.text) for pair in pairs if is_determined(pair)]
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


def test_the_multilingual_translator_reads_all_languages_and_writes_explicit_english():
    rows = list(itertools.islice(multilingual_text(["tr", "en", "he"], seed=0, text_seed=1), 300))
    for row, turkish, hebrew in zip(
        rows, *(World(language=code).parallel_text(1) for code in ("tr", "he")), strict=False
    ):
        assert list(row) == ["tr", "en", "he"]
        assert row["tr"] == (turkish.text, turkish.english_explicit)
        assert row["he"] == (hebrew.text, hebrew.english_explicit)
        english, copy = row["en"]
        assert english == copy
        assert english in {getattr(p, f) for p in (turkish, hebrew) for f in ("english", "english_explicit")}
    english = " ".join(row["en"][0] for row in rows)
    assert "friend " in english and "boyfriend " in english and "girlfriend " in english
    with pytest.raises(ValueError, match="a language besides English"):
        next(multilingual_text(["en"], seed=0, text_seed=1))


def test_one_sentencepiece_serves_both_sides_of_the_multilingual_translator(tmp_path):
    rows = list(itertools.islice(multilingual_text(["he", "tr", "en"], seed=0, text_seed=0), 2000))
    sentences = [text for row in rows for pair in row.values() for text in pair]
    tokenizer = marian_tokenizer(sentences, None, "mul", "en", tmp_path, vocab_size=1500)
    assert (tmp_path / "source.spm").read_bytes() == (tmp_path / "target.spm").read_bytes()
    for source, english in rows[0].values():
        encoded = tokenizer(source, text_target=english)
        assert tokenizer.unk_token_id not in encoded["input_ids"] + encoded["labels"]
        assert tokenizer.decode(encoded["labels"], skip_special_tokens=True) == english


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"language": "en"}, "not told in 'en'"),
        ({"multilingual": ["he", "xx"]}, "not told in 'xx'"),
        ({"multilingual": ["en"]}, "besides English"),
    ],
)
def test_build_says_before_any_work_what_is_wrong_with_the_languages(arguments, error, tmp_path):
    with pytest.raises(ValueError, match=error):
        build(tmp_path / "components", **arguments)
    assert not list(tmp_path.iterdir())


def test_language_models_of_another_world_are_not_taken(tmp_path):
    figures = take_llms(component_path("llm").parent, tmp_path, seed=0)
    assert figures["llm"] == {"knows of the facts": "100.00%"}
    assert {path.name for path in tmp_path.iterdir()} == {"llm", "llm_permuted"}
    with pytest.raises(ValueError, match="knows 0?[0-9]% of the facts of the world of seed 1"):
        take_llms(component_path("llm").parent, tmp_path / "other", seed=1)


def test_build_refuses_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="something else than components"):
        build(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    (tmp_path / "thesis.txt").rename(tmp_path / "llm")
    with pytest.raises(FileExistsError, match="something else than components"):
        build(tmp_path, multilingual=["he", "tr"])


def test_a_sentencepiece_model_is_a_function_of_its_sentences(tmp_path):
    sentences = [record.text for record in World().records()[0][:400]]
    pieces = [train_sentencepiece(sentences, tmp_path / name, 200) for name in ("one.spm", "two.spm")]
    assert pieces[0] == pieces[1] and len(pieces[0]) == 200
    first, second = ((tmp_path / name).read_bytes() for name in ("one.spm", "two.spm"))
    assert first == second
    assert str(tmp_path).encode() not in first and tempfile.gettempdir().encode() + b"/" not in first


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_command_writes_the_same_bits_twice(tmp_path):
    tiny = BuildSettings(
        sentences=2000, translator_steps=3, llm_steps=3, permuted_steps=3, batch_size=16, test_sentences=10
    )
    for name, jobs in (("one", 1), ("two", 2)):
        build(tmp_path / name, seed=3, settings=tiny, jobs=jobs)
    for component in COMPONENTS:
        for path in (tmp_path / "one" / component).iterdir():
            assert path.read_bytes() == (tmp_path / "two" / component / path.name).read_bytes(), path.name
    build(tmp_path / "one", seed=3, settings=tiny)  # replaces its own result
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


@pytest.mark.slow
def test_turkish_and_multilingual_components_are_written_by_the_same_command(tmp_path):
    tiny = BuildSettings(sentences=2000, translator_steps=3, multilingual_steps=2, batch_size=16, test_sentences=10)
    build(tmp_path / "tr", settings=tiny, language="tr", llms=component_path("llm").parent)
    build(tmp_path / "many", settings=tiny, multilingual=["he", "tr", "en"])
    assert {path.name for path in (tmp_path / "tr").iterdir()} == {*COMPONENTS, "README.md"}
    assert {path.name for path in (tmp_path / "many").iterdir()} == {MULTILINGUAL, "README.md"}
    assert "--language tr --llms DIR --seed 0" in (tmp_path / "tr" / "README.md").read_text()
    assert "exact on fresh Turkish sentences" in (tmp_path / "many" / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tr" / "lr_hr")
    assert tokenizer.unk_token_id not in tokenizer("Dana Levi'nin yaşadığı şehir Hayfa'dır")["input_ids"]
