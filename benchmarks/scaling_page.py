"""Write docs/scaling.md: what a 72B LLM, 100 million sentences and 64 GPUs take, from what was measured and counted.

    python -m benchmarks.scaling --output docs/measured/MACHINE
    python -m benchmarks.scaling_page

Rates are read from the speed.json and scaling.json of the folders in docs/measured, which are kept beside the page so that every
figure of it has been made by something; what stands in none of them is "not measured yet".
Memory and FLOP are counted on the meta device while the page is written.
"""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

from benchmarks import scaling
from tall_hf.files import atomic_write, read_json


NOT_MEASURED = "not measured yet"
MEASURED = Path(__file__).parents[1] / "docs/measured"
_FILES = ("speed.json", "scaling.json")
SENTENCES, GPUS, LLM, LENGTH = 100_000_000, 64, "72B", 25
_MACHINES = 8  # of eight GPUs each
# What a plan may assume while no GPU has been measured: an H100's data sheet, the aims of the benchmark, a network of 400 Gbit/s a GPU.
_PEAK, _SHARE, _TRANSLATIONS, _NETWORK = 989e12, 0.35, 2000, 50e9


def page(speeds: list[dict], growths: list[dict]) -> str:
    """The page's text.

    Args:
        speeds: contents of speed.json files.
        growths: contents of scaling.json files.
    """
    counted = [scaling.size_of(llm, LENGTH) for llm in ("0.5B", "1.5B", "3B", "7B", LLM)]
    large = counted[-1]
    loaded = large["frozen_bytes"] + 4 * large["trained"]
    sent = _sent_bytes(large)
    training, translation = (_rate(speeds, what) for what in ("training", "of which translation"))
    efficiency = _efficiency(growths)
    lines = [
        "# How a TALL grows",
        "",
        "    python -m benchmarks.scaling_page",
        "",
        "writes this page: parameters, memory and FLOP are counted on the meta device, rates are those that `python -m "
        "benchmarks.speed` and `python -m benchmarks.scaling` measured, in the files of docs/measured. What no file holds stands here as "
        f'"{NOT_MEASURED}".',
        "",
        "## By the LLM's size",
        "",
        f"The paper's translators around Qwen2.5 configurations, the paper's bridge; frozen parts in bfloat16, adapters, their "
        f"gradients and AdamW's moments in float32; sentences, translations and targets of {LENGTH} tokens, one learned token each; "
        "translation with 4 beams. The adapters grow with the LLM's width, since custom decoder 1 has it.",
        "",
        "| LLM | parameters | trained | frozen, GB | adapters with optimizer, GB | TFLOP a training sentence | TFLOP a translation |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {row['llm']} | {row['parameters']:,} | {row['trained']:,} | {row['frozen_bytes'] / 1e9:,.1f} | "
            f"{row['trained_bytes'] / 1e9:,.1f} | {row['flop_per_training_sentence'] / 1e12:.3f} | "
            f"{row['flop_per_translated_sentence'] / 1e12:.3f} |"
            for row in counted
        ),
        "",
        f"## {LLM}, {SENTENCES / 1e6:.0f} million sentences, {GPUS} GPUs",
        "",
        "    " + launch_command(),
        "",
        f"on each of {_MACHINES} machines with 8 GPUs: `RANK` is 0 to {_MACHINES - 1}, `HOST` the address of the machine of rank 0. **This has "
        "not been run.** The file shards every layer over all GPUs (FSDP2), frozen ones too; a test sees that accelerate can read it.",
        "",
        "| what | figure | from |",
        "|---|---:|---|",
        f"| weights, gradients and optimizer a GPU | {(large['frozen_bytes'] + large['trained_bytes']) / GPUS / 1e9:.1f} GB | counted |",
        f"| inputs of the LLM's layers that checkpointing keeps, a sentence | {large['llm_inputs_bytes_per_sentence'] / 1e6:.0f} MB | counted |",
        f"| all activations a GPU | {NOT_MEASURED} | a step on a GPU |",
        f"| what lies in no layer, embeddings most of all, and is gathered whole | {large['outside_layers_bytes'] / 1e9:,.1f} GB | counted |",
        f"| what a GPU is sent in a step: weights forward and backward, gradients of the adapters | {sent / 1e9:,.0f} GB | counted |",
        f"| work of one epoch | {_exaflop(large['flop_per_training_sentence'])} EFLOP | counted |",
        f"| work of translating everything once | {_exaflop(large['flop_per_translated_sentence'])} EFLOP | counted |",
        f"| a GPU in training | {_teraflops(training)} | speed.json of a GPU, training step in bfloat16 |",
        f"| a GPU in translation | {_teraflops(translation)} | speed.json of a GPU, translation in bfloat16 |",
        f"| what two processes keep of their speed, the least measured | {NOT_MEASURED if efficiency is None else f'{efficiency:.0%}'} | scaling.json |",
        f"| one epoch, at that rate and efficiency on every GPU | {_hours(large['flop_per_training_sentence'], training, efficiency)} | "
        "computed |",
        f"| translation | {_hours(large['flop_per_translated_sentence'], translation, 1.0)} | computed |",
        "",
        f"Before it is sharded each process loads the whole model, and a machine has 8 of them: {8 * loaded / 1e9:,.0f} GB of its memory, "
        "of a checkpoint in bfloat16. At the end one process loads it once more, in float32, to save it with the trained adapters: "
        f"{4 * large['parameters'] / 1e9:,.0f} GB. "
        "Accelerate's way to load in one process alone does not know the buffers of a TALL. "
        "A GPU gathers one layer at a time, so its memory holds that layer besides, and what lies in no layer. With gradient checkpointing layers are computed once "
        "more than the work above counts. The last lines take a GPU to be as busy with the large LLM as it was with the measured one, and the network to be as good as "
        "what two processes had; neither has been seen. Translation shares nothing between GPUs (`tall prepare` under `accelerate launch`).",
        "",
        _assumed(large),
        "",
        *_measured_growth(growths),
    ]
    return "\n".join(lines).rstrip() + "\n"


def launch_command() -> str:
    return (
        "accelerate launch --config_file examples/accelerate/fsdp2_64_gpus.yaml --machine_rank RANK --main_process_ip HOST "
        "-m tall_hf.cli train CONFIG.yaml "
        "--frozen_dtype bfloat16 --bf16 true --gradient_checkpointing true --train_sampling_strategy group_by_length"
    )


def _assumed(large) -> str:
    """What follows if the aims are reached, said as what it is."""
    rate = _SHARE * _PEAK
    hours = SENTENCES * large["flop_per_training_sentence"] / (rate * GPUS) / 3600
    arriving = _sent_bytes(large) / _NETWORK
    batch = math.ceil(arriving * rate / large["flop_per_training_sentence"])
    return (
        f"To plan with, **assumed and not measured**: if GPUs that make {_PEAK / 1e12:.0f} TFLOP/s in bfloat16 (an H100's data sheet) were "
        f"{_SHARE:.0%} busy, which is the aim, an epoch would take {hours:.1f} hours; at the aim of {_TRANSLATIONS:,} translations a second and "
        f"GPU, translating everything {SENTENCES / _TRANSLATIONS / GPUS / 60:.0f} minutes. Over a network of {_NETWORK / 1e9:.0f} GB/s a GPU "
        f"what it is sent in a step arrives in {arriving:.1f} s, so a GPU needs {batch} sentences a step, or it "
        f"waits for them: {batch * large['llm_inputs_bytes_per_sentence'] / 1e9:.1f} GB of the inputs above."
    )


def _sent_bytes(size) -> float:
    """Of a step on one GPU of many: frozen weights and adapters, gathered twice, and the gradients that are shared out."""
    adapters = 4 * size["trained"]
    return 2 * (size["frozen_bytes"] + adapters) + adapters


def _rate(speeds, what) -> float | None:
    """FLOP a second of a GPU with the paper's Qwen size in bfloat16: ceiling times the share of it that the best run reached."""
    rates = [
        row["share"] * found["ceilings"]["bfloat16"]["flop_per_second"]
        for found in speeds
        if found["machine"]["device"] != "cpu"
        for row in found["rows"]
        if (row["size"], row["dtype"]) == ("qwen", "bfloat16") and row["what"].startswith(what) and row["share"]
    ]
    return max(rates, default=None)


def _efficiency(growths) -> float | None:
    """The least of what was measured."""
    return min(
        (growth["processes"]["rows"][-1]["efficiency"] for growth in growths if "processes" in growth), default=None
    )


def _exaflop(flop) -> str:
    return f"{flop * SENTENCES / 1e18:,.0f}"


def _teraflops(rate) -> str:
    return NOT_MEASURED if rate is None else f"{rate / 1e12:,.0f} TFLOP/s"


def _hours(flop, rate, efficiency) -> str:
    if rate is None or efficiency is None:
        return NOT_MEASURED
    return f"{flop * SENTENCES / (rate * GPUS * efficiency) / 3600:,.1f} hours"


def _measured_growth(growths) -> list[str]:
    titles = {
        "batches": "Batch and length: stages 1 to 7, one batch",
        "padding": "Padding: sentences of 5 to 45 tokens",
        "models": "A training step by the LLM's size",
        "processes": "Processes, a thread each",
    }
    lines = []
    for name, title in titles.items():
        parts = [growth[name] for growth in growths if name in growth]
        lines += [f"## {title}", ""]
        if not parts:
            lines += [
                f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}: `python -m benchmarks.scaling --parts {name}`.",
                "",
            ]
        for part in parts:
            machine, options = part["machine"], part["options"]
            lines.append(
                f"`python -m benchmarks.scaling --parts {name} --size {options['size']} --dtype {options['dtype']}`, "
                f"{machine['device']} ({machine['processor']}), {machine['threads']} threads, torch {machine['torch']}, "
                f"{machine['date']}, seed {options['seed']}."
            )
            columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
            lines += [
                "",
                f"| {' | '.join(column.replace('_', ' ') for column in columns)} |",
                "|" + "---:|" * len(columns),
            ]
            lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in part["rows"]]
            lines.append("")
    return lines


def _cell(value) -> str:
    if value is None:
        return ""
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def read(folders: Iterable[str | Path], name: str) -> list[dict]:
    """The contents of the files of a name, of the folders that have one.

    Raises:
        ValueError: one is damaged.
    """
    paths = [Path(folder, name) for folder in folders]
    return [read_json(path) for path in paths if path.exists()]


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--measured", nargs="+", help="folders with a speed.json or scaling.json; all in docs/measured by default"
    )
    parser.add_argument("--output", default="docs/scaling.md")
    options = parser.parse_args(argv)
    folders = sorted(MEASURED.iterdir()) if options.measured is None else options.measured
    for folder in folders:
        if not any(Path(folder, name).is_file() for name in _FILES):
            parser.error(
                f"argument --measured: {folder} holds neither {' nor '.join(_FILES)}, so nothing that was measured"
            )
    text = page(*(read(folders, name) for name in _FILES))
    with atomic_write(options.output) as path:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
