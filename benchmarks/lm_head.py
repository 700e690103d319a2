"""The LM head on the last positions of a batch: a slice of the decoder's states beside the block of memory that models here read.

    python -m benchmarks.lm_head

Torch multiplies a slice as one product for each row, in bfloat16 with a copy of the head's weights for each. Seconds are the least
of some calls, in the width of the paper's HR→LR translator.
"""

import argparse

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import meters
from benchmarks.options import count
from tall_hf.modeling.frozen_parts_tall import last_positions


def main(argv: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=count, default=65839)
    parser.add_argument("--width", type=count, default=512)
    parser.add_argument("--length", type=count, default=25, help="tokens of a text, of which the last is kept")
    parser.add_argument("--batches", type=count, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--repeats", type=count, default=4)
    options = parser.parse_args(argv)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(options.vocabulary, options.width, generator=generator).to(dtype)
        for batch in options.batches:
            states = torch.randn(batch, options.length, options.width, generator=generator).to(dtype)
            kept = last_positions(1, options.length, states.device)
            ways = {
                "slice": lambda states=states: states[:, -1:],
                "block": lambda states=states, kept=kept: states[:, kept],
            }
            row = {"dtype": str(dtype).removeprefix("torch."), "batch": batch}
            with torch.inference_mode():
                found = {name: torch.nn.functional.linear(way(), weight) for name, way in ways.items()}
                torch.testing.assert_close(found["slice"], found["block"], rtol=2e-2, atol=2e-2 * options.width**0.5)
                for name, way in ways.items():
                    row[name] = meters.seconds(
                        lambda way=way, weight=weight: torch.nn.functional.linear(way(), weight),
                        "cpu",
                        options.repeats,
                    )
            rows.append(row)
    table = Table(title=f"{options.vocabulary} tokens of width {options.width}, {torch.get_num_threads()} threads")
    for name in ("dtype", "batch", "slice, ms", "block, ms"):
        table.add_column(name, justify="left" if name == "dtype" else "right")
    for row in rows:
        table.add_row(row["dtype"], str(row["batch"]), f"{1e3 * row['slice']:.0f}", f"{1e3 * row['block']:.0f}")
    Console().print(table)
    return rows


if __name__ == "__main__":
    main()
