"""What golden checkpoints are asked. It imports nothing of this package, so that a process without it can ask too:

python -I -S questions.py SITE_PACKAGES FOLDER NAME...      # writes FOLDER/NAME.safetensors and FOLDER/NAME.json
"""

import json
import sys
from pathlib import Path


if __name__ == "__main__":
    sys.path.append(sys.argv[1])  # by hand, for -S leaves it out

import torch
import transformers
from safetensors.torch import save_file


TEXTS = ["דנה גרה", "יוסי גר בבית", "רות אוכלת תפוח ירוק"]
TRANSLATIONS = ["Dana lives", "Yossi lives in the", "Ruth"]
PROMPT, LABELS = "Who is it", ["Dana", "Hello world"]


@torch.no_grad()
def ask(model, processor) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors, words): token ids, logits behind each row, generated ids, and words or labels with probabilities."""
    if type(model).__name__ == "TALLForCausalLM":
        inputs = processor(text=TEXTS, translations=TRANSLATIONS, return_tensors="pt")
        words = {
            "translations": model.translate(TEXTS, processor),
            "next_words": model.next_words(TEXTS, processor, top_k=3, translations=TRANSLATIONS),
        }
    else:
        inputs = processor(text=TEXTS, prompt=PROMPT, return_tensors="pt")
        words = {"labels": model.classify(TEXTS, processor, LABELS, prompt=PROMPT)}
    tensors = {name: value for name, value in inputs.items() if name.endswith("input_ids")}
    tensors["logits"] = model(**inputs).logits[:, -1]
    tensors["generated"] = model.generate(**inputs, do_sample=False, max_new_tokens=5)
    return tensors, words


def main(folder: Path, names: list[str]):
    torch.set_num_threads(1)
    remote = {"trust_remote_code": True}
    for name in names:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / name, **remote)
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        tensors, words = ask(model, transformers.AutoProcessor.from_pretrained(folder / name, **remote))
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(words), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[2]), sys.argv[3:])
