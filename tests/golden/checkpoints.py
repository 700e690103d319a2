"""Tiny checkpoints of both models, whole and light, with what they answer; written by one installation, checked by another.

    python tests/golden/checkpoints.py write FOLDER       # random weights of a fixed seed, and FOLDER/expected.*
    python tests/golden/checkpoints.py check FOLDER --exact

tests/golden/saved was written once, by the versions that its expected.json names, and guards the format: what is saved
today has to be read by every later version. It is written anew only for a format that this package has not read before,
beside the old one. `make test-floor` lets the lowest and the newest supported versions check each other's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when huggingface_hub is imported
sys.path.insert(0, str(Path(__file__).parents[1]))

import parts
import questions
import tokenizers
import torch
import transformers
from questions import ask
from safetensors.torch import load_file, save_file

from tall_hf import (
    LayerFusionForCausalLM,
    LayerFusionProcessor,
    TALLForCausalLM,
    TALLProcessor,
    compose,
    compose_layer_fusion,
    load_light,
)
from tall_hf.training.light import save_light


SAVED = Path(__file__).parent / "saved"
CODE = Path(sys.modules[TALLForCausalLM.__module__].__file__).parent
CLASSES = {"tall": (TALLForCausalLM, TALLProcessor), "layer_fusion": (LayerFusionForCausalLM, LayerFusionProcessor)}
FORMS = [f"{name}{form}" for name in CLASSES for form in ("", "_light")]


# --- what they answer ------------------------------------------------------------------------------------------------


def load(folder: Path, form: str):
    """(model, processor) of one of FORMS, by the package's own classes; a light one onto the whole one beside it."""
    if form.endswith("_light"):
        return load_light(folder / form, base=folder / form.removesuffix("_light"))
    model_class, processor_class = CLASSES[form]
    return model_class.from_pretrained(folder / form), processor_class.from_pretrained(folder / form)


def ask_remote(folder: Path) -> dict[str, tuple[dict[str, torch.Tensor], dict]]:
    """What the whole ones answer by the Auto classes, by name, with today's code, in a process without this package."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in CLASSES:
            shutil.copytree(folder / name, Path(temporary, name))
            for path in CODE.glob("*_*.py"):
                shutil.copy(path, Path(temporary, name))
        done = subprocess.run(
            # -S reads no .pth file, -I no PYTHONPATH: an editable installation of this package stays out of reach.
            [sys.executable, "-I", "-S", questions.__file__, sysconfig.get_path("purelib"), temporary, *CLASSES],
            env=os.environ | {"HF_HOME": str(Path(temporary, "home")), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"The Auto classes cannot load {folder}:\n{done.stderr[-3000:]}")
        return {
            name: (
                load_file(Path(temporary, f"{name}.safetensors")),
                json.loads(Path(temporary, f"{name}.json").read_text(encoding="utf-8")),
            )
            for name in CLASSES
        }


def differences(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], exact: bool) -> list[str]:
    """What is not as expected, one line each: ids must be equal, logits bit for bit or close."""
    lines = []
    if found.keys() != expected.keys():
        lines.append(f"has {sorted(found)}, expected {sorted(expected)}")
    for name in sorted(found.keys() & expected.keys()):
        ours, theirs = found[name], expected[name]
        same = ours.shape == theirs.shape and (
            # Another processor may add up in another order.
            torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
            if name == "logits" and not exact
            else torch.equal(ours, theirs)
        )
        if not same:
            lines.append(f"{name} is {ours.tolist()}, expected {theirs.tolist()}")
    return lines


def word_differences(found: dict, expected: dict) -> list[str]:
    """As `differences`, of texts with probabilities."""
    found = json.loads(json.dumps(found))
    lines = [
        f"{name} is {found.get(name)}, expected {expected[name]}"
        for name in expected
        if _rounded(found.get(name)) != _rounded(expected[name])
    ]
    return lines if found.keys() == expected.keys() else [*lines, f"has {sorted(found)}, expected {sorted(expected)}"]


def _rounded(value):
    """Lists of lists of (word, probability), with as many digits as any machine has."""
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


def check(folder: Path, form: str, answered: tuple[dict[str, torch.Tensor], dict], exact: bool = False) -> list[str]:
    """Compare what one of FORMS answered with what is expected; what differs."""
    found, words = answered
    tensors = load_file(folder / "expected.safetensors")
    wanted = {name.removeprefix(f"{form}."): value for name, value in tensors.items() if name.startswith(f"{form}.")}
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return differences(found, wanted, exact) + word_differences(words, expected["answers"][form])


def check_all(folder: Path, exact: bool = False) -> list[str]:
    """`check` every checkpoint in every public way of loading it."""
    lines = [f"{form}: {line}" for form in FORMS for line in check(folder, form, ask(*load(folder, form)), exact)]
    for name, answered in ask_remote(folder).items():
        lines += [f"{name} as remote code: {line}" for line in check(folder, name, answered, exact)]
    return lines


# --- writing ---------------------------------------------------------------------------------------------------------


def _write_parts(folder: Path):
    """The smallest parts that are still real: Marian translators, a Qwen2 with grouped heads, an XLM-R encoder."""
    # Those that were learned once, without the usual normalization, a table of 240 kB: each version learns other pieces.
    hebrew, english = (
        (SAVED / "tall" / "source_tokenizer" / f"{side}.spm").read_bytes() for side in ("source", "target")
    )
    layers = {"decoder_layers": 1, "max_position_embeddings": 32}
    for name, source, target, width in (
        ("marian_he_en", hebrew, english, 8),
        ("marian_en_he", english, hebrew, 12),
    ):
        model, tokenizer = parts.marian(folder / name, source, target, width, heads=2, **layers)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_letters(), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    common = {**sizes, **ends, "vocab_size": len(tokenizer), "initializer_range": parts.LOUD}
    models = {
        "llm": transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(num_key_value_heads=1, max_position_embeddings=64, **common)
        ),
        "encoder": transformers.XLMRobertaForMaskedLM(
            transformers.XLMRobertaConfig(max_position_embeddings=34, type_vocab_size=1, **common)
        ),
    }
    for name, model in models.items():
        parts.stir(model).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _letters() -> tokenizers.Tokenizer:
    """A tokenizer of single letters, which is a short file."""
    alphabet = sorted(set("".join(parts.HEBREW + parts.ENGLISH)) - {" "})
    vocab = {piece: i for i, piece in enumerate(["<unk>", "<pad>", "</s>", "Ġ", *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "Ġ")
    tokenizer.decoder = tokenizers.decoders.Replace("Ġ", " ")
    return tokenizer


def write(folder: Path) -> None:
    """Write every checkpoint and its answers to a folder that is not there yet."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    tensors, words = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        made_of = Path(temporary)
        _write_parts(made_of)
        composed = {
            "tall": compose(
                made_of / "marian_he_en",
                made_of / "llm",
                made_of / "marian_en_he",
                source_bridge="gated",
                gate_init=0.0,  # the default when these were saved
                source_fusion="global_softmax",
            ),
            "layer_fusion": compose_layer_fusion(
                made_of / "encoder", made_of / "llm", source_fusion="global_softmax", max_source_length=32
            ),
        }
        for name, (model, processor) in composed.items():
            parts.stir(model)
            # Names that are the same wherever this is written.
            for role, component in model.config.components.items():
                component["name_or_path"] = getattr(model.config, f"{role}_config")._name_or_path = f"golden/{role}"
            model.save_pretrained(folder / name)
            processor.save_pretrained(folder / name)
            # Other adapters than those of the whole one, or a light one that was never read would pass.
            save_light(parts.stir(model), processor, folder / f"{name}_light")
    for path in folder.rglob("*.py"):
        path.unlink()  # a reader brings today's
    for form in FORMS:
        found, words[form] = ask(*load(folder, form))
        tensors |= {f"{form}.{key}": value.contiguous() for key, value in found.items()}
    save_file(tensors, folder / "expected.safetensors")
    versions = {module.__name__: module.__version__ for module in (torch, transformers, tokenizers)}
    report = {"versions": versions, "answers": words}
    (folder / "expected.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["write", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exact", action="store_true", help="logits bit for bit: the same torch on the same machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    if arguments.action == "write":
        write(arguments.folder)
        print(f"{arguments.folder} was written by {versions}.")
        return
    if lines := check_all(arguments.folder, arguments.exact):
        sys.exit("\n".join([f"{arguments.folder}, read by {versions}, answers otherwise:", *lines]))
    by = json.loads((arguments.folder / "expected.json").read_text(encoding="utf-8"))["versions"]
    kind = "bit for bit" if arguments.exact else "closely"
    print(f"{arguments.folder}, written by transformers {by['transformers']}, is answered {kind} by {versions}.")


if __name__ == "__main__":
    main()
