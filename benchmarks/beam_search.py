"""The search for a language model's next words, by beams that share the cache of their text and by beams with their own.

Random weights, of a spread at which words get long, as where a language is written letter by letter: beams that are too
improbable are given up, so the table says how many steps there were. Both search for the same words, in turn.

    python -m benchmarks.beam_search --threads 1
"""

import argparse
import platform
import statistics
import time
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from tall_hf.evaluation.approaches.language_model import LanguageModel
from tall_hf.evaluation.beam_tree import BeamTree
from tall_hf.microworld import component_path


def main(args=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256, help="hidden size; four layers, 64 to a head")
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--spread", type=float, default=0.3, help="standard deviation of the weights")
    parser.add_argument("--batch-size", type=int, default=64, help="texts at a time")
    parser.add_argument(
        "--length", type=int, default=65, help="tokens of the longest text; the shortest has half of them"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; as many as it takes when not given")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(args)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(component_path("llm"))
    llm = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=max(arguments.vocabulary, len(tokenizer)),
            hidden_size=arguments.width,
            intermediate_size=3 * arguments.width,
            num_hidden_layers=4,
            num_attention_heads=arguments.width // 64,
            num_key_value_heads=arguments.width // 64,
            initializer_range=arguments.spread,
        )
    )
    model = LanguageModel(llm, tokenizer)
    lengths = torch.randint(arguments.length // 2, arguments.length + 1, (arguments.batch_size,)).tolist()
    letters = model.continuations.nonzero().flatten()
    texts = [
        tokenizer.decode(letters[torch.randint(len(letters), (length,))].tolist(), skip_special_tokens=True)
        for length in lengths
    ]

    rows_read = []
    llm.model.register_forward_hook(lambda module, inputs, outputs: rows_read.append(len(outputs.last_hidden_state)))

    def search(shared):
        rows_read.clear()
        began = time.perf_counter()
        with patch.object(BeamTree, "can_grow", staticmethod(lambda llm, cache: shared)):
            found = model.next_words(texts, top_k=5)
        return time.perf_counter() - began, found

    times = {True: [], False: []}
    for _ in range(arguments.repeats):
        for shared in times:
            seconds, found = search(shared)
            times[shared].append(seconds)
    words = {shared: [[word for word, _ in row] for row in search(shared)[1]] for shared in times}
    table = Table(
        title=f"{len(texts)} texts, width {arguments.width}, {len(rows_read) - 1} steps, {platform.machine()}, "
        f"threads: {torch.get_num_threads()}",
        title_justify="left",
    )
    for column in ("cache", "seconds", "ms a text"):
        table.add_column(column, justify="left" if column == "cache" else "right")
    for shared, name in ((False, "a row for each beam"), (True, "a row for each text")):
        middle = statistics.median(times[shared])
        table.add_row(name, f"{middle:.2f}", f"{1000 * middle / len(texts):.1f}")
    Console(width=100).print(table)
    same = sum(a == b for a, b in zip(words[True], words[False], strict=True))
    print(f"{same} of {len(texts)} texts have the same five words in the same order.")
    return {"steps": len(rows_read) - 1, "same": same, "seconds": times}


if __name__ == "__main__":
    main()
