"""The saved folder, loaded through trust_remote_code in a process that cannot import this package."""

import ast
import json
import os
import subprocess
import sys
import sysconfig

import parts
import pytest
import torch
from safetensors.torch import load_file


# What travels, and nothing else.
REMOTE_CODE = {
    "alignment_tall.py",
    "configuration_tall.py",
    "encoder_tall.py",
    "frozen_parts_tall.py",
    "fusion_tall.py",
    "generation_tall.py",
    "look_ahead_tall.py",
    "marian_tall.py",
    "modeling_tall.py",
    "parameters_tall.py",
    "part_configs_tall.py",
    "pipeline_tall.py",
    "processing_tall.py",
    "saved_weights_tall.py",
    "text_rows_tall.py",
    "words_tall.py",
}
LIBRARIES = {"torch", "transformers"}
CHILD = """
import importlib.util, json, sys
site_packages, folder, out = sys.argv[1:]
# Appended by hand, so that no .pth file is read: an editable installation of this package stays out of reach.
sys.path.append(site_packages)
assert importlib.util.find_spec("tall_hf") is None

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoProcessor, TextIteratorStreamer, pipeline
)

sentences, translations = json.load(open(f"{out}/texts.json", encoding="utf-8"))
tensors, report = {}, {"classes": {}}


def note(name, made):
    report["classes"][name] = [type(made).__module__, type(made).__name__]
    return made


remote = {"trust_remote_code": True}
note("AutoConfig", AutoConfig.from_pretrained(folder, **remote))
for again in ("", " again"):
    processor = note("AutoProcessor" + again, AutoProcessor.from_pretrained(folder, **remote))
    inputs = processor(text=sentences, translations=translations, return_tensors="pt")
    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
        name = auto_class.__name__ + again
        model = note(name, auto_class.from_pretrained(folder, **remote))
        note(name + " config", model.config)
        with torch.no_grad():
            tensors[name] = model(**inputs).logits
        report["trainable"] = sorted(n for n, p in model.named_parameters() if p.requires_grad)
report["next_words"] = model.next_words(sentences, processor, translations=translations)
tensors["generate"] = model.generate(**inputs, do_sample=False, max_new_tokens=6)
for name, value in inputs.items():
    tensors[name] = value
tokenizers = (processor.tokenizer, processor.source_tokenizer, processor.llm_tokenizer)
report["vocabularies"] = [one.get_vocab() for one in tokenizers]
report["translate"] = model.translate(sentences, processor)
for again in ("", " again"):
    pipe = note("pipeline" + again, pipeline("text-generation", model=folder, **remote))
    note("pipeline model" + again, pipe.model)
    report["pipeline"] = pipe(sentences, top_k=3)
    report["pipeline batch"] = pipe(sentences, top_k=3, batch_size=2)
    report["continued"] = pipe(sentences, max_words=2)

pipe = note("pipeline without a task", pipeline(model=folder, **remote))
report["task"] = [pipe.task, pipe(sentences, top_k=3)]
streamer = TextIteratorStreamer(pipe.processor.tokenizer)
pipe(sentences[0], max_words=2, streamer=streamer)
report["streamed"] = list(streamer)

# Saved once more from the remote code, and loaded from there.
model.save_pretrained(f"{out}/again")
processor.save_pretrained(f"{out}/again")
twin = note("saved again", AutoModel.from_pretrained(f"{out}/again", **remote))
with torch.no_grad():
    tensors["saved again"] = twin(**inputs).logits
pickled = f"{out}/pickled"
model.save_pretrained(pickled)
import os
os.remove(f"{pickled}/model.safetensors")
torch.save(model.state_dict(), f"{pickled}/pytorch_model.bin")
try:
    AutoModel.from_pretrained(pickled, **remote)
    report["pickled"] = "loaded"
except Exception as error:
    report["pickled"] = f"{type(error).__name__}: {error}"
report["imported"] = sorted(name for name in sys.modules if name.split(".")[0] == "tall_hf")
save_file({name: value.contiguous() for name, value in tensors.items()}, f"{out}/tensors.safetensors")
json.dump(report, open(f"{out}/report.json", "w", encoding="utf-8"))
"""


@pytest.fixture(scope="module")
def child(composed, tmp_path_factory):
    """(model, processor, tensors, report): what is here, and what a process without the package made of its folder."""
    model, processor = composed("gated")
    folder, out = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("out")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (out / "texts.json").write_text(json.dumps([parts.SENTENCES, parts.TRANSLATIONS]), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(out / "home"), "HF_HUB_OFFLINE": "1"}
    # -S reads no .pth file, -I neither the current folder nor the user's site-packages.
    command = [sys.executable, "-I", "-S", "-c", CHILD, sysconfig.get_path("purelib"), str(folder), str(out)]
    done = subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return model, processor, load_file(out / "tensors.safetensors"), report


def test_exactly_the_remote_code_travels(composed, tmp_path):
    model, processor = composed("gated")
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == REMOTE_CODE
    processor.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == REMOTE_CODE
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    for path in tmp_path.glob("*.py"):
        imports = [
            n
            for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        for statement in imports:
            local = isinstance(statement, ast.ImportFrom) and statement.level == 1
            name = statement.module if isinstance(statement, ast.ImportFrom) else statement.names[0].name
            known = (
                {path.removesuffix(".py") for path in REMOTE_CODE} if local else LIBRARIES | sys.stdlib_module_names
            )
            assert name.split(".")[0] in known, f"{path.name} imports {name}"


def test_every_class_comes_from_the_folder(child):
    _, _, _, report = child
    assert report["imported"] == []
    assert len(report["classes"]) == 1 + 2 * (1 + 3 * 2) + 2 * 2 + 1 + 1
    for name, (module, class_name) in report["classes"].items():
        assert module.startswith("transformers_modules."), name
        assert class_name.startswith("TALL"), name
    assert report["classes"]["pipeline"][1] == "TALLTextGenerationPipeline"
    assert report["classes"]["pipeline without a task"] == report["classes"]["pipeline"]
    assert report["classes"]["AutoProcessor"][1] == "TALLProcessor"
    assert report["classes"]["AutoModel"] == report["classes"]["AutoModelForSeq2SeqLM again"]


@pytest.mark.parametrize("auto_class", ["AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"])
@pytest.mark.parametrize("again", ["", " again"])
def test_logits_are_the_same(child, auto_class, again):
    model, processor, tensors, _ = child
    inputs = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(tensors[auto_class + again], model(**inputs).logits)
        assert torch.equal(tensors["saved again"], tensors[auto_class])


def test_three_tokenizers_come_back_and_encode_the_same(child):
    _, processor, tensors, report = child
    ours = [one.get_vocab() for one in (processor.tokenizer, processor.source_tokenizer, processor.llm_tokenizer)]
    assert report["vocabularies"] == ours
    assert len({json.dumps(one, sort_keys=True) for one in ours}) == 3
    inputs = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    for name, value in inputs.items():
        assert torch.equal(tensors[name], value), name


def test_generation_translation_and_pipeline_are_the_same(child):
    model, processor, tensors, report = child
    inputs = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    assert torch.equal(tensors["generate"], model.generate(**inputs, do_sample=False, max_new_tokens=6))
    expected = model.next_words(parts.SENTENCES, processor, translations=parts.TRANSLATIONS)
    for got, words in zip(report["next_words"], expected, strict=True):
        assert dict(map(tuple, got)) == pytest.approx(dict(words), rel=1e-3)
    assert report["translate"] == model.translate(parts.SENTENCES, processor)
    for words, batched, text in zip(report["pipeline"], report["pipeline batch"], parts.SENTENCES, strict=True):
        [expected] = model.next_words(text, processor, top_k=3)
        for got in (words, batched):
            assert [one["word"] for one in got] == [word for word, _ in expected]
            assert [one["score"] for one in got] == pytest.approx([score for _, score in expected], rel=1e-3)
    expected = [model.complete(text, processor, max_words=2)[0] for text in parts.SENTENCES]
    assert [one["generated_text"] for [one] in report["continued"]] == expected
    assert "".join(report["streamed"]) == expected[0]


def test_the_task_need_not_be_named(child):
    """transformers takes it from `config.custom_pipelines` as long as that has one entry, and asks no Hub for a tag."""
    model, _, _, report = child
    assert list(model.config.custom_pipelines) == ["text-generation"]
    assert report["task"] == ["text-generation", report["pipeline"]]


def test_the_same_parameters_train(child):
    model, _, _, report = child
    assert report["trainable"] == sorted(name for name, p in model.named_parameters() if p.requires_grad)


def test_pickled_weights_are_refused_by_the_remote_code(child):
    _, _, _, report = child
    assert report["pickled"].startswith("OSError")
    assert "safetensors" in report["pickled"]
