"""Build a TALL of the paper's sizes with random weights, and time one forward, one training step and one generation.

Run: python benchmarks/paper_size.py [--llm qwen|bloomz] [--dtype float32]
"""

import argparse
import platform
import resource
import time

import torch
from rich.console import Console
from rich.table import Table
from transformers import BloomConfig

from tall_hf import TALLConfig, TALLForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llm", choices=("qwen", "bloomz"), default="qwen")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--length", type=int, default=20, help="tokens of source, translation and target each")
    parser.add_argument("--new-tokens", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    parts = {"llm_config": BloomConfig(vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16)}
    config = TALLConfig(source_bridge="gated", **(parts if arguments.llm == "bloomz" else {}))
    timings = {}

    def timed(name, function):
        began = time.perf_counter()
        result = function()
        if device == "cuda":
            torch.cuda.synchronize()
        timings[name] = time.perf_counter() - began
        return result

    model = timed(
        "build and initialise",
        lambda: TALLForCausalLM(config).to(device, getattr(torch, arguments.dtype)).eval(),
    )
    shape = (arguments.batch_size, arguments.length)
    inputs = {
        name: torch.randint(5, 1000, shape, device=device)
        for name in ("input_ids", "llm_input_ids", "decoder_input_ids")
    }
    with torch.no_grad():
        timed("forward", lambda: model(**inputs))
    labels = torch.full(shape, -100, device=device)
    labels[:, -1] = 7
    model.train()
    timed("forward and backward", lambda: model(**inputs, labels=labels).loss.backward())
    learned = sum(parameter.grad is not None for parameter in model.parameters())
    assert learned == sum(parameter.requires_grad for parameter in model.parameters())
    model.eval()
    timed("generate", lambda: model.generate(**inputs, max_new_tokens=arguments.new_tokens, do_sample=False))

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    table = Table(
        title=f"{arguments.llm}, {model.num_parameters():,} parameters, {arguments.dtype}, batch {shape}, {where}",
        title_justify="left",
    )
    table.add_column("what")
    table.add_column("seconds", justify="right")
    for name, seconds in timings.items():
        table.add_row(name, f"{seconds:.2f}")
    table.add_row("peak memory (GiB)", f"{peak:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
