"""What a model predicts on fixed inputs, here and, run as a script, in a process that loads it from the Hub as anybody would."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoProcessor


REQUEST_NAME = "request.json"
_TENSORS_NAME = "predictions.safetensors"
_TEXTS_NAME = "texts.json"
# Tokens drawn for each sentence: rows of several lengths, so that padding is part of what is compared.
_LENGTHS = (3, 8, 13)


@dataclass(frozen=True)
class Predictions:
    """Texts, and what a model makes of them.

    Args:
        texts: what its processor was called with: lists of texts by the argument's name.
        tensors: the processor's tensors, (batch, its length) each, and `logits`, (batch, length, vocabulary).
    """

    texts: dict[str, list[str]]
    tensors: dict[str, torch.Tensor]

    def save(self, folder: Path) -> None:
        """Write them to a folder that exists."""
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, folder / _TENSORS_NAME)
        (folder / _TEXTS_NAME).write_text(json.dumps(self.texts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Predictions":
        """Read what `save` wrote."""
        return cls(json.loads((folder / _TEXTS_NAME).read_text(encoding="utf-8")), load_file(folder / _TENSORS_NAME))


def draw_texts(tokenizer) -> list[str]:
    """Texts of random tokens, the same ones for the same tokenizer: they are of the model's language, whichever it is."""
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randint(len(tokenizer), (length,), generator=generator).tolist() for length in _LENGTHS)
    return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]


@torch.no_grad()
def predict(model, processor, texts: dict[str, list[str]] | None = None) -> Predictions:
    """The logits of a model, on texts drawn from its own vocabularies if none are given."""
    if texts is None and hasattr(processor, "llm_tokenizer"):  # a TALL's
        texts = {"text": draw_texts(processor.tokenizer), "translations": draw_texts(processor.llm_tokenizer)}
    elif texts is None:
        texts = {"text": draw_texts(processor.source_tokenizer), "prompt": draw_texts(processor.tokenizer)}
    options = {}
    if "prompt" in texts and processor.source_lang is None and hasattr(processor.source_tokenizer, "src_lang"):
        # Each call is to name the language; random tokens are of none, so any will do.
        options["source_lang"] = processor.source_tokenizer.src_lang
    inputs = processor(**texts, **options, return_tensors="pt")
    return Predictions(texts, {**inputs, "logits": model(**inputs).logits})


def _main(folder: Path):
    request = json.loads((folder / REQUEST_NAME).read_text(encoding="utf-8"))
    # Sums are taken in an order that depends on the number of threads.
    torch.set_num_threads(request["threads"])
    if request["trainable_only"]:
        from tall_hf import load_light

        model, processor = load_light(f"{request['repo_id']}@{request['revision']}")
    else:
        options = {"revision": request["revision"], "trust_remote_code": True}
        model = AutoModelForCausalLM.from_pretrained(request["repo_id"], use_safetensors=True, **options)
        processor = AutoProcessor.from_pretrained(request["repo_id"], **options)
        for made in (model, processor):
            if not type(made).__module__.startswith("transformers_modules."):
                raise RuntimeError(
                    f"{type(made).__name__} came from {type(made).__module__}, not from the repository."
                )
    predict(model, processor, request["texts"]).save(folder)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
