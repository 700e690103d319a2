"""How long an evaluation takes at the paper's sizes: the Qwen model with random weights, a batch of questions at a time.

What random weights would write is not what trained ones write, so each piece is timed by itself at a length that is given:
the translation of the questions, the reading of questions and translations, and one step of the search for whole words.
Seconds a question are their sum, with so many steps; 50,000 questions, the size of the paper's sets, are that 50,000 times.

    python benchmarks/evaluation_speed.py --dtype bfloat16
"""

import argparse
import platform
import time

import torch
from rich.console import Console
from rich.table import Table

from tall_hf import TALLConfig, TALLForCausalLM


def seconds(function, repeats):
    """Seconds of one call, the least of several; a first one warms up."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:])


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=int, default=32, help="questions at a time")
    parser.add_argument("--length", type=int, default=25, help="tokens of a question, and of its translation")
    parser.add_argument("--steps", type=int, default=5, help="steps of the search: tokens of a word, and its end")
    parser.add_argument("--translation-beams", type=int, nargs="+", default=[4, 1])
    parser.add_argument("--word-beams", type=int, nargs="+", default=[16, 4])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, arguments.dtype)
    model = TALLForCausalLM(TALLConfig(source_bridge="gated")).to(device, dtype).eval()
    batch, length = arguments.batch_size, arguments.length
    names = ("input_ids", "llm_input_ids", "decoder_input_ids")
    inputs = {name: torch.randint(5, 1000, (batch, length), device=device) for name in names}

    table = Table(
        title=f"{batch} questions of {length} tokens, {arguments.dtype}, {where(device)}", title_justify="left"
    )
    for column in ("piece", "seconds", "seconds a question", "50,000 questions, hours"):
        table.add_column(column, justify="left" if column == "piece" else "right")

    def add(name, time_taken):
        each = time_taken / batch
        table.add_row(name, f"{time_taken:.2f}", f"{each:.4f}", f"{each * 50_000 / 3600:.1f}")

    translating, searching = {}, {}
    for beams in arguments.translation_beams:
        settings = {"num_beams": beams, "min_new_tokens": length, "max_new_tokens": length, "do_sample": False}
        translating[beams] = seconds(
            lambda settings=settings: model.encoder.translator.generate(inputs["input_ids"], **settings),
            arguments.repeats,
        )
        add(f"translation, {beams} beams", translating[beams])
    reading = seconds(lambda: model(**inputs, use_cache=True, logits_to_keep=1), arguments.repeats)
    add("reading: source, LLM, prefix", reading)
    for beams in arguments.word_beams:
        outputs = model(**inputs, use_cache=True, logits_to_keep=1)
        cache = outputs.past_key_values
        cache.batch_repeat_interleave(beams)
        states = (outputs.encoder_last_hidden_state.repeat_interleave(beams, dim=0),)
        tokens = torch.randint(5, 1000, (batch * beams, 1), device=device)

        def step(states=states, tokens=tokens, cache=cache):
            model(encoder_outputs=states, decoder_input_ids=tokens, past_key_values=cache, use_cache=True)

        searching[beams] = seconds(step, arguments.repeats)
        add(f"one step of the search, {beams} beams", searching[beams])
    for (translation_beams, translation), (beams, step_time) in zip(
        translating.items(), searching.items(), strict=False
    ):
        add(
            f"all: translation with {translation_beams} beams, {arguments.steps} steps with {beams}",
            translation + reading + arguments.steps * step_time,
        )
    Console(width=120).print(table)


def where(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
