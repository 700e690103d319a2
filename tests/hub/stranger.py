"""Loads published models as somebody does who has transformers and not this package: `stranger.py FOLDER`.

To be run with `-I -S`, so that no .pth file is read and an editable installation of this package stays out of reach.
FOLDER holds `request.json`: where the libraries are, texts, and steps. Each step names a repository, what loads it, and
that one's options. After a step its name is printed and a line is awaited, so that whoever started this process can tell
which requests the step made. `tensors.safetensors` and `report.json` are written to FOLDER at the end.
"""

import json
import sys
from pathlib import Path


def main(folder: Path):
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sys.path.append(request["site_packages"])
    try:
        import tall_hf
    except ModuleNotFoundError as error:
        report = {"without": str(error)}
    else:
        raise AssertionError(f"tall_hf can be imported, from {tall_hf.__file__}")

    import torch
    import transformers
    from safetensors.torch import save_file

    # Sums are taken in an order that depends on the number of threads.
    torch.set_num_threads(request["threads"])
    texts, translations = request["texts"], request["translations"]
    tensors, loaded = {}, {}

    def logits(model, processor):
        inputs = processor(text=texts, translations=translations, return_tensors="pt")
        with torch.no_grad():
            return model(**inputs).logits

    def run(name, loader, repo_id, options):
        remote = {"trust_remote_code": True, **options}
        if loader == "pipeline":
            pipe = transformers.pipeline(model=repo_id, **remote)
            return {"class": describe(pipe), "words": [pipe(text, top_k=3) for text in texts]}
        of_both = {key: value for key, value in remote.items() if key not in ("dtype", "device_map")}
        model = getattr(transformers, loader).from_pretrained(repo_id, **remote)
        processor = transformers.AutoProcessor.from_pretrained(repo_id, **of_both)
        loaded[name] = model, processor
        tensors[name] = logits(model, processor)
        return {"class": describe(model), "dtype": str(model.dtype), "processor": describe(processor)}

    def describe(made):
        """Where a class came from, and what its file says of itself."""
        module = sys.modules[type(made).__module__]
        return {"name": type(made).__name__, "module": module.__name__, "edition": getattr(module, "EDITION", None)}

    for step in request["steps"]:
        try:
            report[step["name"]] = run(**step)
        except Exception as error:
            report[step["name"]] = {"error": f"{type(error).__name__}: {error}"}
        print(step["name"], flush=True)
        sys.stdin.readline()
    # With all of them in one process.
    tensors |= {f"{name} again": logits(*made) for name, made in loaded.items()}
    report["imported"] = sorted(name for name in sys.modules if name.split(".")[0] == "tall_hf")
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "tensors.safetensors")
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
