"""How a TALL grows: with batch and sentence length, with the LLM's size, with the number of processes.

    python -m benchmarks.scaling                     # the paper's Qwen size; --size tiny takes a minute
    python -m benchmarks.scaling --parts memory      # from 0.5B to 72B on the meta device, in a minute
    python -m benchmarks.scaling --parts batches processes --dtype bfloat16

Writes scaling.json, which benchmarks/scaling_page.py reads. Memory is counted on the meta device and measured for what fits.
"""

import argparse
import functools
import gc
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers.utils import logging

from benchmarks import budget, meters, sizes, speed_rows
from benchmarks.options import count, device
from tall_hf import TALLForCausalLM
from tall_hf.files import read_json, write_json
from tall_hf.measuring.device import choose_dtype
from tall_hf.training.light import cast_frozen


PARTS = ("processes", "batches", "padding", "memory", "models")
# What a step needs beside weights and optimizer, for a model to be said to fit.
_ROOM = 4e9


# --- batches and lengths ---------------------------------------------------------------------------------------------


def batches(model: TALLForCausalLM, options) -> list[dict]:
    """Sentences and tokens a second of stages 1 to 7 for one batch, by its size and the sentences' length."""
    found = []
    for length in options.lengths:
        for batch in options.batches:
            inputs = random_inputs(batch, length, options.device)
            with torch.inference_mode():
                passed = meters.seconds(lambda inputs=inputs: model(**inputs, logits_to_keep=1), options.device)
            flop = sum(
                stage.flop
                for stage in (
                    *budget.encoding(model, batch, length, length, 4),
                    *budget.writing(model, batch, length, length, 4),
                )
            )
            found.append(
                {
                    "batch": batch,
                    "length": length,
                    "sentences_per_second": batch / passed,
                    "tokens_per_second": batch * length / passed,
                    "flop_per_second": flop / passed,
                }
            )
    return found


def padding(model: TALLForCausalLM, options) -> list[dict]:
    """Sentences of 5 to 45 tokens, batched as they come and by length: the share of padding, and the time of all."""
    generator = torch.Generator().manual_seed(options.seed)
    lengths = torch.randint(5, 46, (options.sentences,), generator=generator).tolist()
    found = []
    for name, ordered in (("as they come", lengths), ("by length", sorted(lengths, reverse=True))):
        groups = [ordered[i : i + options.padded_batch] for i in range(0, len(ordered), options.padded_batch)]
        padded = sum(len(group) * max(group) for group in groups)

        def read(groups=groups):
            with torch.inference_mode():
                for group in groups:
                    model(**random_inputs(len(group), max(group), options.device, group), logits_to_keep=1)

        passed = meters.seconds(read, options.device)
        found.append(
            {
                "order": name,
                "batch": options.padded_batch,
                "padding_share": 1 - sum(lengths) / padded,
                "sentences_per_second": len(lengths) / passed,
            }
        )
    return found


def random_inputs(batch: int, length: int, device: str, lengths: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Token ids for a forward, padded on the right behind `lengths` if they are given."""
    names = ("input_ids", "llm_input_ids", "decoder_input_ids")
    inputs = {name: torch.randint(2, 190, (batch, length), device=device) for name in names}
    if lengths is not None:
        mask = (torch.arange(length, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)).long()
        inputs |= {name.replace("input_ids", "attention_mask"): mask for name in names}
    return inputs


# --- the LLM's size --------------------------------------------------------------------------------------------------


def memory(options) -> list[dict]:
    """Parameters, bytes and FLOP of a TALL by its LLM, counted on the meta device."""
    return [size_of(name, options.length) for name in options.llms]


@functools.cache
def size_of(llm: str, length: int) -> dict:
    """One row of `memory`: frozen parts in bfloat16, adapters, gradients and AdamW's moments in float32.

    Args:
        llm: a size that `sizes.configuration` knows.
        length: tokens of a sentence, a translation and a target, for the FLOP of a training step's sentence.
    """
    with torch.device("meta"):
        model = TALLForCausalLM(sizes.configuration(llm))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = model.num_parameters()
    llm_config = model.config.llm_config
    stages = budget.training_step(model, 1, length, length, length, 2)
    translated = budget.translating(model, 1, length, length, 4, 2)
    # Layers of a list are sharded one by one.
    layers = [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part]
    in_layers = {id(weight) for layer in layers for weight in layer.parameters()}
    outside = [weight for weight in model.parameters() if id(weight) not in in_layers]
    return {
        "llm": llm,
        "parameters": total,
        "trained": trained,
        "frozen_bytes": 2 * (total - trained),
        "trained_bytes": 4 * 4 * trained,
        "outside_layers_bytes": sum((4 if weight.requires_grad else 2) * weight.numel() for weight in outside),
        # What a checkpointed layer keeps for its backward: its input, in bfloat16.
        "llm_inputs_bytes_per_sentence": 2 * length * llm_config.num_hidden_layers * llm_config.hidden_size,
        "flop_per_training_sentence": sum(stage.flop for stage in stages),
        "flop_per_translated_sentence": sum(stage.flop for stage in translated),
    }


def models(options) -> list[dict]:
    """A training step by the LLM's size, for those that fit into what memory is free."""
    found = []
    for llm in options.llms:
        counted = size_of(llm, options.length)
        # Built in float32, then cast.
        needed = 4 * counted["parameters"] + 0.75 * counted["trained_bytes"] + _ROOM
        free = psutil.virtual_memory().available
        if options.device != "cpu":
            free = torch.cuda.mem_get_info()[0]
        if needed > free:
            found.append({"llm": llm, "fits": False, "needed_bytes": needed, "free_bytes": free})
            continue
        passed, peak = training_step(llm, options)
        found.append(
            {
                "llm": llm,
                "fits": True,
                "batch": options.step_sentences,
                "sentences_per_second": options.step_sentences / passed,
                "flop_per_second": options.step_sentences * counted["flop_per_training_sentence"] / passed,
                "peak_bytes": peak,
            }
        )
        gc.collect()
    return found


def build(llm: str, options) -> TALLForCausalLM:
    torch.manual_seed(options.seed)
    with torch.device(options.device):
        return TALLForCausalLM(sizes.configuration(llm))


def training_step(llm: str, options) -> tuple[float, int]:
    """Seconds of a step of TALLTrainer, the least of two after one, and its highest bytes, as benchmarks/speed.py has them."""
    length = options.length
    model, processor = sizes.random_tall(llm, length, beams=1, seed=options.seed, device=options.device)
    if options.dtype == "bfloat16":
        cast_frozen(model, torch.bfloat16)
    known = min(model.config.lr_hr_config.vocab_size, model.config.hr_lr_config.vocab_size)
    texts, translations = (
        sizes.number_texts(options.step_sentences, length, options.seed + more, known) for more in (0, 1)
    )
    rows = speed_rows.training_rows(processor, [text.rsplit(" ", 1)[0] for text in texts], translations, texts)
    subject = speed_rows.Subject(llm, model, processor, texts, options, options.dtype)
    return speed_rows.trained_steps(subject, rows, repeats=2)


# --- processes -------------------------------------------------------------------------------------------------------


def processes(options) -> list[dict]:
    """Sentences a second of a training on one and on two processes of a thread each (on GPUs: one GPU each)."""
    found = []
    for number in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(number):
            environment = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(number),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, "-m", "benchmarks.scaling", "--child", *passed_on(options)]
            children.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        wait(children)
        answers = [child.communicate()[0] for child in children]
        if any(child.returncode for child in children):
            raise RuntimeError(f"A process of {number} failed; its error stands above.")
        slowest = max(json.loads(answer.splitlines()[-1])["seconds"] for answer in answers)
        found.append({"processes": number, "sentences_per_second": number * options.step_sentences / slowest})
    for row in found:
        row["efficiency"] = row["sentences_per_second"] / (row["processes"] * found[0]["sentences_per_second"])
    return found


def wait(children: list[subprocess.Popen]) -> None:
    """Until all have ended, or one has failed: then those that wait for it are ended too."""
    try:
        while any(child.poll() is None for child in children) and not any(child.poll() for child in children):
            time.sleep(0.1)
    finally:
        for child in children:
            child.terminate()


def passed_on(options) -> list[str]:
    names = ("size", "dtype", "device", "length", "step_sentences", "seed")
    return [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]


def child(options):
    """One process of `processes`, which the Trainer joins to the others."""
    torch.set_num_threads(1)
    if options.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    logging.set_verbosity_error()
    passed, _ = training_step(options.size, options)
    print(json.dumps({"seconds": passed}))


# --- the run ---------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--size", choices=sizes.NAMES, default="qwen", help="of what is batched and spread; 0.5B to 72B are the LLM's"
    )
    parser.add_argument("--llms", nargs="+", choices=sizes.NAMES, default=["0.5B", "1.5B", "3B", "7B", "72B"])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=count, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--lengths", type=count, nargs="+", default=[10, 25, 50])
    parser.add_argument("--length", type=count, default=25, help="tokens of a training sentence")
    parser.add_argument("--step-sentences", type=count, default=16)
    parser.add_argument("--sentences", type=count, default=128, help="of mixed length")
    parser.add_argument("--padded-batch", type=count, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/bench", help="folder for scaling.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return child(options)
    dtype = choose_dtype(options.dtype)
    began, console = time.perf_counter(), Console(width=150)
    path = Path(options.output, "scaling.json")
    path.parent.mkdir(parents=True, exist_ok=True)  # or fail before anything is measured
    # Parts that were measured before stay, each with its own machine and options.
    kept = read_json(path) if path.exists() else {}
    asked = {name: value for name, value in vars(options).items() if name not in ("child", "output", "parts")}
    said, results = {"machine": meters.machine(options.device), "options": asked}, {}

    def keep(name, rows):
        results[name] = rows
        write_json(path, kept | {part: {**said, "rows": found} for part, found in results.items()})

    # First, since what later parts have freed stays with this process for the most part, and each of those needs as much.
    if "processes" in options.parts:
        keep("processes", processes(options))
    if {"batches", "padding"} & set(options.parts):
        model = build(options.size, options).eval().to(dtype)
        for name, measure in (("batches", batches), ("padding", padding)):
            if name in options.parts:
                keep(name, measure(model, options))
        del model
    for name, measure in (("memory", memory), ("models", models)):
        if name in options.parts:
            keep(name, measure(options))
    for name, rows in results.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = Table(
            *columns, title=f"{name}: {options.size}, {options.dtype}, {options.device}", title_justify="left"
        )
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        console.print(table)
    console.print(f"All in {(time.perf_counter() - began) / 60:.1f} minutes.")
    return results


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 1e6 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
