"""Speed and memory of a TALL beside the authors' procedure on the same weights, and beside what the machine can do at most.

    python -m benchmarks.speed                       # `make bench`: the paper's two sizes and the embedded default
    python -m benchmarks.speed --quick               # a tiny model, in a minute
    python -m benchmarks.speed --sizes qwen --no-bfloat16 --rows completion training

One table, one JSON file, one plot. A figure in the column "ours, exact" comes with the same beams, the same re-reading and, as
is checked in the run, the same tokens or loss as the reference in its precision; whatever gives up one of these stands under
"ours, settings" and says which. Models of random weights translate everything to a given number of tokens, on both sides. The
reference is measured on few sentences and tokens and multiplied by their number, since it does the same for each (for the later
tokens of a completion a little more, as the text grows, which is left out in the reference's favour); so is our exact completion,
which reads the text again for each word as well.

Where a matrix product in bfloat16 is far slower than in float32, as on processors without instructions for it, a line says so
in place of the rows in bfloat16, which would take hours. Rows that would not be ready in time are left out and named.
"""

import argparse
import dataclasses
import gc
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils import logging

from benchmarks import meters, sizes, speed_report, speed_rows
from benchmarks.options import count, device
from benchmarks.speed_rows import Row, Subject
from tall_hf import TALLForCausalLM, TALLProcessor
from tall_hf.files import write_json
from tall_hf.microworld import World
from tall_hf.microworld.demo import accuracy, predict_words
from tall_hf.training.light import cast_frozen


ROWS = ("training", "completion", "missing word", "next word", "encode", "load")
SIZES = ("microworld", "qwen", "bloomz", "tiny")
# A small model's time is that of calling functions, which no aim is about.
_AIMED_AT = ("qwen", "bloomz")
# What a run notes beside its options.
_NO_SETTINGS = ("ceilings", "console", "left_out", "output", "taken", "until")
# Of float32's rate in a matrix product, below which bfloat16 is left out; and the width of the product that finds out.
_FAR_SLOWER, _NARROW = 1 / 4, 256
# Questions, of the little world, that are answered at a time.
_ASKED_AT_A_TIME = 256


def measure(size: str, options: argparse.Namespace) -> list[Row]:
    """All rows of a size: those in float32, then those in bfloat16, whose model is the first one rounded."""
    most = max(options.sentences, options.step_sentences)
    if size == "microworld":
        model, processor = sizes.microworld_tall(options.seed, options.device)
        texts = sizes.microworld_texts(most, options.seed)
    else:
        model, processor = sizes.random_tall(size, options.length, options.beams, options.seed, options.device)
        known = min(model.config.lr_hr_config.vocab_size, model.config.hr_lr_config.vocab_size)
        texts = sizes.number_texts(most, options.length, options.seed, known)
    subject, rows = Subject(size, model, processor, texts, options), []

    def first(what, dtype="float32"):
        return next((row for row in rows if row.what.startswith(what) and row.dtype == dtype), None)

    made = {
        "training": lambda: speed_rows.training(subject, first("training"), first("its memory")),
        "completion": lambda: speed_rows.completion(subject, first("complete")),
        "missing word": lambda: speed_rows.missing_word(
            subject, [first("missing word"), first("of which translation")]
        ),
        "next word": lambda: speed_rows.next_word(subject, first("next word")),
        "encode": lambda: speed_rows.encode(subject),
        "load": lambda: speed_rows.load(subject),
    }
    # A token of the little world is a piece of a word, and `complete` does not read again within a word.
    wanted = [name for name in made if name in options.rows and (subject.is_random or name != "completion")]
    for dtype in options.dtypes:
        subject.dtype = dtype
        for name in wanted:
            if name == "training" and dtype == "bfloat16":
                # Adapters are trained in float32 between frozen parts in bfloat16; all else is in bfloat16 alone.
                cast_frozen(model, torch.bfloat16)
            elif name != "training":
                model.to(getattr(torch, dtype))
            began = time.perf_counter()
            # The size before took about as long.
            expected = max((one["seconds"] for one in options.taken if one["rows"] == name), default=0)
            if began + expected > options.until:
                options.left_out.append(f"{size}, {dtype}, {name}")
                continue
            rows += made[name]()
            seconds = time.perf_counter() - began
            options.taken.append({"size": size, "dtype": dtype, "rows": name, "seconds": seconds})
            options.console.log(f"{size}, {dtype}, {name}: measured in {seconds:.0f} s")
    if size not in _AIMED_AT:
        for row in rows:
            row.aim = row.aimed_share = None
    return rows


def accuracies(options: argparse.Namespace) -> list[dict]:
    """What settings cost: right answers about held-out people of a TALL trained on the little world, by setting.

    `refresh_words` cannot change the word that is asked for, before which nothing is read again. So it is asked for two words: the
    text ends one word earlier, and the second word that is written counts.
    """
    if not Path(options.trained, "config.json").exists():
        return []
    records = World().records()[1]
    model = TALLForCausalLM.from_pretrained(options.trained).to(options.device).eval()
    processor = TALLProcessor.from_pretrained(options.trained)
    subject = Subject("microworld", model, processor, [record.truncated for record in records], options)
    earlier = [text.rsplit(" ", 1)[0] for text in subject.texts]
    found = []

    def batches(texts):
        return [texts[start : start + _ASKED_AT_A_TIME] for start in range(0, len(texts), _ASKED_AT_A_TIME)]

    def add(setting, words, compared_with=None):
        right = accuracy(records, words)["all"]
        change = None if compared_with is None else right - compared_with
        found.append({"setting": setting, "questions": len(records), "accuracy": right, "change": change})
        return right

    def next_word(translate):
        translations = [line for batch in batches(subject.texts) for line in translate(batch)]
        return predict_words(model, processor, subject.texts, translations)

    def second_word(refresh_words):
        completed = [
            text
            for batch in batches(earlier)
            for text in model.complete(batch, processor, max_words=2, refresh_words=refresh_words)
        ]
        added = [text.split()[len(start.split()) :] for text, start in zip(completed, earlier, strict=True)]
        return [words[1].rstrip(".,") if len(words) > 1 else "" for words in added]

    exact = add(
        "exact: the translator's own settings, float32", next_word(lambda batch: model.translate(batch, processor))
    )
    add("greedy translation", next_word(lambda batch: model.translate(batch, processor, num_beams=1)), exact)
    if subject.int8_translate is not None:
        add("greedy translation, int8 by CTranslate2", next_word(subject.int8_translate), exact)
    exact_second = add("exact, the second of two words: read again behind the first", second_word(1))
    add("refresh_words=0, likewise", second_word(0), exact_second)
    if "bfloat16" in options.dtypes:
        model.to(torch.bfloat16)
        add("bfloat16", next_word(lambda batch: model.translate(batch, processor)), exact)
    return found


def measure_ceilings(options: argparse.Namespace) -> tuple[dict, list[str]]:
    """FLOP a second of a matrix product by dtype with bytes a second of a copy, and a line on each dtype that is too slow to measure."""
    copied = meters.copy_rate(options.device, options.copy_bytes)
    narrow = min(_NARROW, options.matmul_width)
    # As narrow in both: a GPU is far from its rate there.
    rates = {name: meters.matmul_rate(getattr(torch, name), options.device, narrow) for name in options.dtypes}
    ceilings, slow = {}, []
    for name, rate in rates.items():
        is_slow = rate < _FAR_SLOWER * rates["float32"]
        if is_slow:
            slow.append(
                f"{name}: a matrix product makes {rate / 1e9:,.3g} GFLOP/s in it and {rates['float32'] / 1e9:,.3g} in float32, so this "
                f"machine has no instructions for it. Its rows are left out; --slow-bfloat16 measures them all the same."
            )
        if not is_slow or options.slow_bfloat16:
            rate = meters.matmul_rate(getattr(torch, name), options.device, options.matmul_width)
        ceilings[name] = {"flop_per_second": rate, "bytes_per_second": copied}
    return ceilings, slow


def run(options: argparse.Namespace) -> dict:
    """Measure everything; JSON values."""
    began = time.perf_counter()
    options.until, options.left_out, options.taken = began + 60 * options.minutes, [], []
    options.ceilings, slow = measure_ceilings(options)
    if slow and not options.slow_bfloat16:
        options.console.log(*slow)
        options.dtypes = ["float32"]
    rows = []
    for size in options.sizes:
        rows += measure(size, options)
        gc.collect()
    settings = {name: value for name, value in vars(options).items() if name not in _NO_SETTINGS}
    return {
        "machine": meters.machine(options.device),
        "options": settings,
        "ceilings": options.ceilings,
        "rows": [dataclasses.asdict(row) for row in rows],
        "accuracy": accuracies(options),
        "slow": slow,
        "left_out": options.left_out,
        "taken": options.taken,
        "seconds": time.perf_counter() - began,
    }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny model and the little world, few tokens")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="microworld qwen bloomz by default")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--no-bfloat16", action="store_true", help="float32 alone, which the reference is measured in")
    parser.add_argument(
        "--slow-bfloat16", action="store_true", help="bfloat16 even where it is far slower than float32"
    )
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--length", type=count, default=25, help="tokens of a sentence, and of its translation")
    parser.add_argument("--beams", type=count, default=4, help="of the exact translation")
    parser.add_argument("--new-tokens", type=count, default=20, help="that a sentence is completed by")
    parser.add_argument("--sentences", type=count, default=32, help="whose missing word is asked")
    parser.add_argument("--batch", type=count, default=32, help="sentences read at a time")
    parser.add_argument("--step-sentences", type=count, default=16, help="of a training step; an even number")
    parser.add_argument(
        "--reference-tokens",
        type=count,
        default=3,
        help="that are written in fact, by the reference and by ours that reads again",
    )
    parser.add_argument("--reference-sentences", type=count, default=3, help="that the reference reads in fact")
    parser.add_argument("--matmul-width", type=count, default=4096)
    parser.add_argument("--copy-bytes", type=count, default=2**30)
    parser.add_argument(
        "--minutes",
        type=float,
        default=14,
        help="within which a group of rows must be ready, by what it took of the size before, to be begun",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--trained",
        help="a TALL of the little world, to ask what settings cost; outputs/demo, of `make demo`, by default",
    )
    parser.add_argument("--output", default="outputs/bench", help="folder for speed.json and speed.png")
    if argv is None:
        argv = sys.argv[1:]
    if "--quick" in argv:
        small = {"length": 12, "new_tokens": 6, "sentences": 8, "batch": 8, "step_sentences": 4, "reference_tokens": 6}
        small |= {"reference_sentences": 8, "matmul_width": 512, "copy_bytes": 2**24}
        parser.set_defaults(**small)
    options = parser.parse_args(argv)
    if options.length < 2:
        parser.error(f"argument --length: a sentence has a last word and one before it, got {options.length}")
    if options.step_sentences % 2:
        parser.error(f"argument --step-sentences: the step is made in two halves too, got {options.step_sentences}")
    if options.trained is None:
        options.trained = "outputs/demo"
    elif not Path(options.trained, "config.json").is_file():
        parser.error(f"argument --trained: {options.trained} holds no config.json, so no model")
    options.dtypes = ["float32"] if options.no_bfloat16 else ["float32", "bfloat16"]
    options.sizes = options.sizes or (["tiny", "microworld"] if options.quick else list(SIZES[:3]))
    return options


def main(argv: list[str] | None = None) -> dict:
    options = arguments(argv)
    options.console = Console(stderr=True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)  # or fail before anything is measured
    results = run(options)
    write_json(folder / "speed.json", results)
    speed_report.show(results, Console(width=200))
    speed_report.plot(results, folder / "speed.png")
    wrong = [row for row in results["rows"] if row["dtype"] == "float32" and row["exact"] is None]
    if wrong:
        sys.exit(
            "In float32 "
            + ", ".join(f"{row['size']}: {row['what']}" for row in wrong)
            + " differs from the reference."
        )
    return results


if __name__ == "__main__":
    main()
