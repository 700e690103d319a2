"""How much of a beam translation survives when its sentence grows by a word: what reusing the last one could save at most.

    python -m benchmarks.translation_reuse

A completion that re-reads translates a sentence again that has one word more. A draft made of the last translation's beams
would spare the steps in which all beams are still the same, and cost one pass over the draft.
"""

import argparse

from rich.console import Console
from rich.table import Table

from benchmarks import sizes
from benchmarks.options import count


def surviving(model, processor, texts: list[str], words: int) -> dict[str, float]:
    """Shares of the steps of each translation in which the best beam, and all beams, are those of the translation before.

    Args:
        texts: sentences whose last `words` words are added one at a time.
    """
    translator = model.encoder.translator
    beams = translator.generation_config.num_beams
    steps = best = every = 0
    for text in texts:
        pieces, before = text.split(), None
        for end in range(max(1, len(pieces) - words), len(pieces) + 1):
            inputs = processor.encode_source(" ".join(pieces[:end]), return_tensors="pt").to(model.device)
            rows = translator.generate(**inputs, num_return_sequences=beams).tolist()
            if before is not None:
                steps += len(rows[0]) - 1
                best += _common(rows[:1], before[:1]) - 1  # the start token is no step
                every += _common(rows, before) - 1
            before = rows
    return {"steps": steps, "best beam": best / steps, "all beams": every / steps}


def _common(rows, others) -> int:
    """Up to which token the two sets of rows begin alike."""
    for end in range(1, min(len(rows[0]), len(others[0])) + 1):
        if {tuple(row[:end]) for row in rows} != {tuple(row[:end]) for row in others}:
            return end - 1
    return min(len(rows[0]), len(others[0]))


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("tiny", "qwen", "microworld"), default=["tiny", "microworld"])
    parser.add_argument("--sentences", type=count, default=10)
    parser.add_argument("--words", type=count, default=3, help="that each sentence grows by, one at a time")
    parser.add_argument(
        "--length", type=count, default=25, help="words of a sentence and tokens of a translation, random models"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    found = {}
    table = Table("model", "steps", "best beam unchanged", "all beams unchanged", title=str(vars(options)))
    for size in options.sizes:
        if size == "microworld":
            model, processor = sizes.microworld_tall(options.seed, "cpu")
            texts = sizes.microworld_texts(4 * options.sentences, options.seed)[::4]
        else:
            model, processor = sizes.random_tall(size, options.length, 4, options.seed, "cpu")
            texts = sizes.number_texts(options.sentences, options.length, options.seed, vocab_size=200)
        found[size] = surviving(model, processor, texts, options.words)
        table.add_row(size, *(f"{found[size][name]:.3g}" for name in ("steps", "best beam", "all beams")))
    Console(width=100).print(table)
    return found


if __name__ == "__main__":
    main()
