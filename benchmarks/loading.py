"""Load a checkpoint of the paper's sizes (random weights) and run its first forward: cold and warm, as saved and cast to bf16.

Run: python benchmarks/loading.py [--llm qwen|bloomz] [--dtype float32] [--max-shard-size 5GB]

Each load is a process of its own, which reads every weight: files are mapped, so a load by itself has read nothing. "Cold"
asks the system to forget the files before. Peak memory is what the process takes beyond its imports, pages of the mapped files
included; the bound beside it is 1.15 times the size of what ends up in memory plus the largest shard.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import BloomConfig

from tall_hf import TALLConfig, TALLForCausalLM


def load(folder: str, dtype: str) -> dict:
    """Load, predict, touch every weight; seconds and bytes of this process."""
    imports = _peak_memory()
    began = time.perf_counter()
    model = TALLForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    loaded = time.perf_counter()
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.inference_mode():
        model(input_ids=ids, llm_input_ids=ids, decoder_input_ids=ids)
        forward = time.perf_counter()
        # What a forward leaves alone: embeddings of other tokens, and the decoder that translates.
        tensors = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}.values()
        for tensor in tensors:
            tensor.sum(dtype=torch.float32)
    return {
        "load": loaded - began,
        "first forward": forward - loaded,
        "every weight": time.perf_counter() - forward,
        "size": sum(tensor.nbytes for tensor in tensors),
        "imports": imports,
        "peak": _peak_memory() - imports,
    }


def touch(folder: str) -> float:
    """Read the files and look at every byte of them, which is the least that loading can take; seconds."""
    began = time.perf_counter()
    for path in Path(folder).glob("*.safetensors"):
        content = torch.from_file(str(path), size=path.stat().st_size // 8, dtype=torch.int64).clone()
        content.sum()
    return time.perf_counter() - began


def load_beside_touching(folder: str, dtype: str) -> dict:
    """`load` of files that were just read, and the lesser of two times of `touch`."""
    touched = [touch(folder) for _ in range(2)]
    return {**load(folder, dtype), "touch": min(touched)}


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build(folder: str, llm: str, dtype: str, max_shard_size: str, seed: str) -> dict:
    """Save a model of random weights."""
    torch.manual_seed(int(seed))
    bloom = {"llm_config": BloomConfig(vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16)}
    model = TALLForCausalLM(TALLConfig(source_bridge="gated", **(bloom if llm == "bloomz" else {})))
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    return {"parameters": model.num_parameters()}


def in_child(function: str, *arguments) -> dict:
    """Call a function of this file in a process of its own, whose peak of memory is no other's.

    A process starts with the peak of the one that started it, so this one must not build the model.
    """
    command = [sys.executable, __file__, "--child", json.dumps([function, *map(str, arguments)])]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def forget(folder: Path):
    """Drop the folder's files from the system's cache."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", choices=("qwen", "bloomz"), default="qwen")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the checkpoint")
    parser.add_argument("--max-shard-size", default="5GB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        function, *arguments = options.child
        print(
            json.dumps(
                {"load": load, "build": build, "load_beside_touching": load_beside_touching}[function](*arguments)
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        built = in_child("build", folder, options.llm, options.dtype, options.max_shard_size, options.seed)
        shards = [path.stat().st_size for path in folder.glob("*.safetensors")]
        table = Table(
            title=f"{options.llm}, {built['parameters']:,} parameters, saved in {options.dtype} in {len(shards)} file(s), the largest "
            f"{max(shards) / 2**30:.2f} GiB; {platform.machine()}, {torch.get_num_threads()} threads",
            title_justify="left",
        )
        columns = (
            "loaded as",
            "files",
            "load s",
            "first forward s",
            "every weight s",
            "in memory GiB",
            "peak GiB",
            "bound GiB",
        )
        for column in columns:
            table.add_column(column, justify="right")
        over = False
        for dtype in dict.fromkeys((options.dtype, "bfloat16")):
            for state in ("cold", "warm"):
                if state == "cold":
                    forget(folder)
                found = in_child("load", folder, dtype)
                bound = 1.15 * found["size"] + max(shards)
                over |= found["peak"] > bound
                seconds = [f"{found[name]:.2f}" for name in ("load", "first forward", "every weight")]
                sizes = [f"{number / 2**30:.2f}" for number in (found["size"], found["peak"], bound)]
                table.add_row(dtype, state, *seconds, *sizes)
        table.caption = f"The imports take {found['imports'] / 2**30:.2f} GiB besides."
        table.caption_justify = "left"
        Console(width=130).print(table)
    if over:
        sys.exit("Peak memory is above its bound.")


if __name__ == "__main__":
    main()
