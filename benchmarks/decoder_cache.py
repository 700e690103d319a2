"""What the decoder's cache is worth when words are written: each token with what was kept of those before, and without.

    python -m benchmarks.decoder_cache

A sentence that is translated already is completed from one reading (`refresh_words=0`). Both ways write the same words, or the run ends
with an error.
"""

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import meters, sizes
from benchmarks.options import count, device


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sizes.NAMES, default="qwen")
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--length", type=count, default=25, help="tokens of the sentence, and of its translation")
    parser.add_argument("--new-tokens", type=count, default=20, help="that it is completed by")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    model, processor = sizes.random_tall(options.size, options.length, 1, options.seed, options.device)
    known = min(model.config.lr_hr_config.vocab_size, model.config.hr_lr_config.vocab_size)
    text, translation = sizes.number_texts(2, options.length, options.seed, known)

    def complete(use_cache: bool) -> str:
        (completed,) = model.complete(
            text, processor, max_words=options.new_tokens, translations=[translation], use_cache=use_cache
        )
        return completed

    if complete(True) != complete(False):
        sys.exit("With the cache other words are written than without.")
    found = {
        name: meters.seconds(lambda use_cache=use_cache: complete(use_cache), options.device, options.repeats)
        for name, use_cache in (("without", False), ("with", True))
    }
    table = Table(*(f"{name} cache, s" for name in found), "ratio", title=str(vars(options)))
    table.add_row(*(f"{seconds:.3g}" for seconds in found.values()), f"{found['without'] / found['with']:.2g}")
    Console(width=120).print(table)
    return found


if __name__ == "__main__":
    main()
