"""Speed and memory of a TALL beside the authors' procedure on the same weights, and beside what the machine can do at most.

    python -m benchmarks.speed                       # `make bench`: the paper's two sizes and the embedded default
    python -m benchmarks.speed --quick               # a tiny model, in a minute
    python -m benchmarks.speed --sizes qwen --no-bfloat16 --rows completion training

One table, one JSON file, one plot. A figure in the column "ours, exact" comes with the same beams, the same re-reading and, as
is checked in the run, the same tokens or loss as the reference in its precision; whatever gives up one of these stands under
"ours, settings" and says which. Models of random weights translate everything to a given number of tokens, on both sides. The
reference is measured on few sentences and tokens and multiplied by their number, since it does the same for each.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from benchmarks import budget, loading, meters, reference, sizes
from tall_hf import LastTokenCollator, TALLForCausalLM, TALLProcessor, TALLTrainer, TALLTrainingArguments
from tall_hf.data.translation import translation_backend
from tall_hf.files import written_whole
from tall_hf.microworld import World
from tall_hf.microworld.demo import accuracy, predict_words
from tall_hf.training.light import cast_frozen


ROWS = ("completion", "missing word", "training", "encode", "load")
SIZES = ("qwen", "bloomz", "microworld", "tiny")
# A small model's time is that of calling functions, which no aim is about.
_AIMED_AT = ("qwen", "bloomz")
_TRANSLATED_EVERY = 5  # epochs that one translation lasts for
_LOSS_TOLERANCE = 1e-3


@dataclass
class Row:
    """One line of the table. All figures are of `unit`, and less is better.

    Attributes:
        ratio_of: "reference" where a ratio says how many times less than the reference it is, "ours" where it says how many
            times more than a bound below.
        aim: the ratio that is aimed at: at least it, or with "ours" at most.
        equal: what was compared with the reference in the run, and how much of it was the same.
        settings: figures that gave up exactness, by what gave it up.
        share: of the measured ceiling, for what is computed.
        aimed_share: what of it is aimed at.
        stages: useful FLOP and bytes of what is exact.
    """

    size: str
    what: str
    dtype: str
    unit: str
    reference: float | None = None
    reference_note: str = ""
    exact: float | None = None
    equal: str = ""
    settings: dict[str, float] = field(default_factory=dict)
    ratio_of: str = "reference"
    aim: float | None = None
    share: float | None = None
    aimed_share: float | None = None
    stages: list[budget.Stage] = field(default_factory=list)

    def ratio(self, figure: float | None) -> float | None:
        if figure is None or not self.reference:
            return None
        return self.reference / figure if self.ratio_of == "reference" else figure / self.reference

    def put(self, figure: float, same: bool, otherwise: str):
        """Take a figure as exact if its answers were the reference's, and else as a setting's."""
        if same:
            self.exact = figure
        else:
            self.settings[otherwise] = figure


@dataclass
class Subject:
    """A model to measure, and what it is measured with."""

    size: str
    model: object
    processor: object
    texts: list[str]
    options: argparse.Namespace
    dtype: str = "float32"

    @property
    def itemsize(self) -> int:
        return getattr(torch, self.dtype).itemsize

    @property
    def is_random(self) -> bool:
        return self.size != "microworld"

    def seconds(self, function, repeats=1):
        return meters.seconds(function, self.options.device, repeats)

    def timed(self, function):
        return meters.timed(function, self.options.device)


# --- rows ------------------------------------------------------------------------------------------------------------


def completion(subject: Subject, float32: Row | None) -> list[Row]:
    """A sentence completed, at batch 1, translation included."""
    model, processor, options = subject.model, subject.processor, subject.options
    text, tokens, few = subject.texts[0], options.new_tokens, min(options.reference_tokens, options.new_tokens)
    row = Row(subject.size, f"complete a sentence by {tokens} tokens, batch 1", subject.dtype, "s", aim=40)
    reference.next_token(model, processor, text)  # warms up
    wanted, passed = subject.timed(lambda: reference.complete(model, processor, text, few))
    if float32 is None:
        row.reference, row.reference_note = passed / few * tokens, f"{few} of {tokens} tokens measured"
    else:
        row.reference, row.reference_note = float32.reference, "float32"
    answer, exact = subject.timed(lambda: model.complete(text, processor, max_words=tokens, refresh_words=1)[0])
    written = zip(answer.split(), wanted.split(), strict=False)
    same = sum(ours == theirs for ours, theirs in written) - len(text.split())
    row.equal = f"{same}/{few} tokens"
    row.put(exact, same == few, "rounding")

    def settled(**generation):
        translations = model.translate([text], processor, **generation)
        return model.complete(text, processor, max_words=tokens, translations=translations)

    row.settings["refresh_words=0"] = subject.seconds(settled)
    row.settings["refresh_words=0, greedy translation"] = subject.seconds(lambda: settled(num_beams=1))
    with int8_translator(subject) as translate:
        if translate is not None:
            row.settings["refresh_words=0, greedy int8 translation"] = subject.seconds(
                lambda: model.complete(text, processor, max_words=tokens, translations=translate([text]))
            )
    length = options.length
    row.stages = [
        stage.times(tokens)
        for stage in (
            *budget.translating(model, 1, length + tokens // 2, length, options.beams, subject.itemsize),
            *budget.encoding(model, 1, length + tokens // 2, length, subject.itemsize),
            *budget.writing(model, 1, length, length + tokens // 2, subject.itemsize),
        )
    ]
    return [row]


def missing_word(subject: Subject, float32: Row | None) -> list[Row]:
    """The next token of many sentences, translation included; a sentence's share of the time."""
    model, processor, options = subject.model, subject.processor, subject.options
    texts, few = subject.texts[: options.sentences], min(options.reference_sentences, options.sentences)
    row = Row(subject.size, f"missing word of {len(texts)} sentences, each", subject.dtype, "s", aim=30)
    wanted, passed = subject.timed(lambda: [reference.next_token(model, processor, text) for text in texts[:few]])
    if float32 is None:
        row.reference, row.reference_note = passed / few, f"{few} sentences measured"
    else:
        row.reference, row.reference_note = float32.reference, "float32"

    def answer(translate):
        found = []
        for batch in by_length(texts, options.batch):
            found += zip(batch, next_tokens(model, processor, batch, translate(batch)), strict=True)
        return dict(found)

    def translate(batch, **generation):
        return model.translate(batch, processor, **generation)

    answers, exact = subject.timed(lambda: answer(translate))
    same = sum(answers[text] == token for text, token in zip(texts, wanted, strict=False))
    row.equal = f"{same}/{few} tokens"
    row.put(exact / len(texts), same == few, "rounding")
    _, greedy = subject.timed(lambda: answer(lambda batch: translate(batch, num_beams=1)))
    row.settings["greedy translation"] = greedy / len(texts)
    with int8_translator(subject) as int8:
        if int8 is not None:
            row.settings["greedy int8 translation"] = subject.timed(lambda: answer(int8))[1] / len(texts)
    length = options.length
    row.stages = [
        *budget.translating(model, 1, length, length, options.beams, subject.itemsize),
        *budget.encoding(model, 1, length, length, subject.itemsize),
        *budget.writing(model, 1, length, length, subject.itemsize),
    ]
    row.share = share(row, row.exact or row.settings.get("rounding"), subject)
    return [row]


def training(subject: Subject, float32: Row | None, float32_memory: Row | None) -> list[Row]:
    """A training step: seconds a sentence with a translation that lasts five epochs, and the memory beyond what must be."""
    model, processor, options = subject.model, subject.processor, subject.options
    texts = subject.texts[: options.step_sentences]
    row = Row(subject.size, f"training step of {len(texts)} sentences, each", subject.dtype, "s", aim=12)
    memory = Row(
        subject.size, "its memory beyond weights, gradients, optimizer", subject.dtype, "GB", aim=2, equal="same batch"
    )
    truncated = [text.rsplit(" ", 1)[0] for text in texts]
    translations, translating = subject.timed(lambda: model.translate(truncated, processor))
    _, greedy = subject.timed(lambda: model.translate(truncated, processor, num_beams=1))
    rows = training_rows(processor, truncated, translations, texts)
    batch = LastTokenCollator(processor, loss_positions="last_token")(rows)
    batch = {name: tensor.to(options.device) for name, tensor in batch.items()}
    if float32 is None:
        few = min(options.reference_sentences, len(texts))
        _, one_by_one = subject.timed(
            lambda: [reference.translate(model, processor, text) for text in truncated[:few]]
        )
        loss = evaluated(model, lambda: reference_loss(model, batch))
        row.equal, same = same_loss(loss, evaluated(model, lambda: model(**batch).loss.item()))
        step = reference.Training(model.train())
        stepping = subject.seconds(lambda: step.step(batch))
        with meters.PeakMemory(options.device) as peak:
            step.step(batch)
        model.eval()
        row.reference = one_by_one / few + stepping / len(texts)
        row.reference_note = f"translation of {few} sentences measured"
        memory.reference = (peak.bytes - trained_bytes(model)) / 1e9
        del step
    else:
        row.reference, row.reference_note, memory.reference = float32.reference, "float32", float32_memory.reference
        row.equal, same = "rounded to bfloat16", False
    stepping, peak_bytes = trained_steps(subject, rows)
    row.put((stepping + translating / _TRANSLATED_EVERY) / len(texts), same, "bfloat16, adapters in float32")
    row.settings["greedy translation"] = (stepping + greedy / _TRANSLATED_EVERY) / len(texts)
    memory.put((peak_bytes - trained_bytes(model)) / 1e9, same, "bfloat16, adapters in float32")
    halves, halves_bytes = trained_steps(subject, rows, accumulation=2)
    row.settings["in two halves, accumulated"] = (halves + translating / _TRANSLATED_EVERY) / len(texts)
    memory.settings["in two halves, accumulated"] = (halves_bytes - trained_bytes(model)) / 1e9
    lengths = [batch[name].shape[1] for name in ("input_ids", "llm_input_ids", "decoder_input_ids")]
    row.stages = [
        stage.times(1 / len(texts)) for stage in budget.training_step(model, len(texts), *lengths, subject.itemsize)
    ]
    row.share = share(row, stepping / len(texts), subject)
    row.aimed_share = 0.6 if subject.dtype == "float32" else 0.5
    return [row, memory]


def encode(subject: Subject) -> list[Row]:
    """Stages 1 to 6 beside the LLM alone, on the same tokens."""
    model, options = subject.model, subject.options
    row = Row(
        subject.size,
        f"encode {options.batch} sentences; the LLM alone as reference",
        subject.dtype,
        "s",
        ratio_of="ours",
        aim=2,
    )
    shape = (options.batch, options.length)
    ids = torch.randint(2, 200, shape, device=options.device)
    with torch.no_grad():
        row.reference = subject.seconds(lambda: model.encoder.llm(input_ids=ids, use_cache=False), repeats=2)
        row.exact = subject.seconds(lambda: model.encoder(input_ids=ids, llm_input_ids=ids), repeats=2)
    row.stages = budget.encoding(model, *shape, options.length, subject.itemsize)
    row.share = share(row, row.exact, subject)
    return [row]


def load(subject: Subject) -> list[Row]:
    """Load and first forward in a new process, beside reading the files and touching every byte; both warm."""
    row = Row(subject.size, "load and first forward; reading and touching the file as reference", subject.dtype, "s")
    row.ratio_of, row.aim = "ours", 1.5
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        found = loading.in_child("load_beside_touching", folder, subject.dtype)
        row.reference, row.exact = found["touch"], found["load"] + found["first forward"]
    return [row]


# --- what rows are made with -----------------------------------------------------------------------------------------


def by_length(texts: list[str], batch_size: int) -> list[list[str]]:
    """Batches of texts of like length."""
    ordered = sorted(texts, key=len, reverse=True)
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def next_tokens(model, processor, texts, translations) -> list[int]:
    """One greedy token behind each text."""
    inputs = processor(text=texts, translations=translations, return_tensors="pt").to(model.device)
    with torch.no_grad():
        return model.generate(**inputs, max_new_tokens=1, do_sample=False)[:, -1].tolist()


def training_rows(processor, truncated, translations, texts) -> list[dict[str, list[int]]]:
    """Token ids of each sentence as LastTokenCollator reads them."""
    encoded = processor(text=truncated, translations=translations, text_target=texts)
    return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]


@torch.no_grad()
def reference_loss(model, batch) -> float:
    inputs = {name: batch[name] for name in batch if name not in ("labels", "decoder_attention_mask")}
    every = reference.logits(model, **inputs)
    return torch.nn.functional.cross_entropy(every.flatten(0, 1).float(), batch["labels"].flatten()).item()


def evaluated(model, function):
    """The function's value without dropout."""
    model.eval()
    with torch.no_grad():
        return function()


def same_loss(theirs: float, ours: float) -> tuple[str, bool]:
    return f"loss {ours:.4f} and {theirs:.4f}", abs(theirs - ours) <= _LOSS_TOLERANCE


def trained_bytes(model) -> int:
    """Bytes of the gradients, which a step makes and must make."""
    return sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


class StepMeter(TrainerCallback):
    """Seconds of the Trainer's steps, and the memory of the last one, whose seconds do not count."""

    def __init__(self, device: str, steps: int):
        self.device, self.steps = device, steps
        self.times, self.peak = [], meters.PeakMemory(device)

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.steps - 1:
            self.peak.__enter__()
        meters.synchronize(self.device)
        self._began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        meters.synchronize(self.device)
        self.times.append(time.perf_counter() - self._began)
        if state.global_step == self.steps:
            self.peak.__exit__(None, None, None)


def trained_steps(subject: Subject, rows, accumulation: int = 1) -> tuple[float, int]:
    """Seconds of a step of TALLTrainer, the least of two, and the highest bytes of one."""
    steps, in_bfloat16 = 4, subject.dtype == "bfloat16"  # the first warms up, the last is looked at
    meter = StepMeter(subject.options.device, steps)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TALLTrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=len(rows) // accumulation,
            gradient_accumulation_steps=accumulation,
            loss_positions="last_token",
            bf16=in_bfloat16,
            use_cpu=subject.options.device == "cpu",
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = TALLTrainer(
            subject.model, arguments, train_dataset=rows, processing_class=subject.processor, callbacks=[meter]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    subject.model.eval()
    del trainer
    gc.collect()
    return min(meter.times[1:-1]), meter.peak.bytes


def int8_translator(subject: Subject):
    """A context with a greedy int8 translation by CTranslate2, or with None where it is not installed."""
    if find_spec("ctranslate2") is None:
        return contextlib.nullcontext()
    return translation_backend(subject.model, subject.processor, "ctranslate2", "int8", {"num_beams": 1})


def share(row: Row, seconds: float, subject: Subject) -> float:
    """Of the measured matmul rate, what the useful FLOP of a row reached."""
    rate = subject.options.ceilings[subject.dtype]["flop_per_second"]
    return sum(stage.flop for stage in row.stages) / seconds / rate


# --- the run ---------------------------------------------------------------------------------------------------------


def measure(size: str, options: argparse.Namespace) -> list[Row]:
    """All rows of a size: those in float32, then those in bfloat16, whose model is the first one rounded."""
    if size == "microworld":
        model, processor = sizes.microworld_tall(options.seed, options.device)
        texts = sizes.microworld_texts(max(options.sentences, options.step_sentences), options.seed)
    else:
        model, processor = sizes.random_tall(size, options.length, options.beams, options.seed, options.device)
        count = max(options.sentences, options.step_sentences)
        known = min(model.config.lr_hr_config.vocab_size, model.config.hr_lr_config.vocab_size)
        texts = sizes.number_texts(count, options.length, options.seed, known)
    subject, rows = Subject(size, model, processor, texts, options), []

    def first(what, dtype="float32"):
        return next((row for row in rows if row.what.startswith(what) and row.dtype == dtype), None)

    for dtype in options.dtypes:
        subject.dtype = dtype
        if dtype == "bfloat16":
            # Adapters are trained in float32 between frozen parts in bfloat16; all else is measured in bfloat16 alone.
            cast_frozen(model, torch.bfloat16)
        if "training" in options.rows:
            rows += training(subject, first("training"), first("its memory"))
        model.to(getattr(torch, dtype))
        # A token of the little world is a piece of a word, and `complete` does not read again within a word.
        if "completion" in options.rows and subject.is_random:
            rows += completion(subject, first("complete"))
        if "missing word" in options.rows:
            rows += missing_word(subject, first("missing word"))
        if "encode" in options.rows:
            rows += encode(subject)
        if "load" in options.rows:
            rows += load(subject)
        options.console.log(f"{size}, {dtype}: measured")
    if size not in _AIMED_AT:
        for row in rows:
            row.aim = row.aimed_share = None
    return rows


def accuracies(options: argparse.Namespace) -> list[dict]:
    """What settings cost: right answers about held-out people of a TALL trained on the little world, by setting.

    `refresh_words` is not among them, since the question is the next word, before which nothing is read again.
    """
    if not Path(options.trained, "config.json").exists():
        return []
    records = World().records()[1]
    model = TALLForCausalLM.from_pretrained(options.trained).to(options.device).eval()
    processor = TALLProcessor.from_pretrained(options.trained)
    subject = Subject("microworld", model, processor, [record.truncated for record in records], options)
    found = []

    def ask(setting, translate):
        translations = [line for batch in batches(subject.texts) for line in translate(batch)]
        words = predict_words(model, processor, subject.texts, translations)
        found.append({"setting": setting, "questions": len(records), "accuracy": accuracy(records, words)["all"]})

    def batches(texts):
        return [texts[start : start + 256] for start in range(0, len(texts), 256)]

    ask("exact: the translator's own settings, float32", lambda batch: model.translate(batch, processor))
    ask("greedy translation", lambda batch: model.translate(batch, processor, num_beams=1))
    with int8_translator(subject) as int8:
        if int8 is not None:
            ask("greedy int8 translation", int8)
    if "bfloat16" in options.dtypes:
        model.to(torch.bfloat16)
        ask("bfloat16", lambda batch: model.translate(batch, processor))
    return found


def run(options: argparse.Namespace) -> dict:
    """Measure everything; JSON values."""
    began = time.perf_counter()
    dtypes = {name: getattr(torch, name) for name in options.dtypes}
    copied = meters.copy_rate(options.device, options.copy_bytes)
    options.ceilings = {
        name: {
            "flop_per_second": meters.matmul_rate(dtype, options.device, options.matmul_width),
            "bytes_per_second": copied,
        }
        for name, dtype in dtypes.items()
    }
    rows = []
    for size in options.sizes:
        rows += measure(size, options)
        gc.collect()
    settings = {name: value for name, value in vars(options).items() if name not in ("ceilings", "console", "output")}
    return {
        "machine": meters.machine(options.device),
        "options": settings,
        "ceilings": options.ceilings,
        "rows": [dataclasses.asdict(row) for row in rows],
        "accuracy": accuracies(options),
        "seconds": time.perf_counter() - began,
    }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny model and the little world, few tokens")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="qwen bloomz microworld by default")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--no-bfloat16", action="store_true", help="float32 alone, which the reference is measured in")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--length", type=int, default=25, help="tokens of a sentence, and of its translation")
    parser.add_argument("--beams", type=int, default=4, help="of the exact translation")
    parser.add_argument("--new-tokens", type=int, default=20, help="that a sentence is completed by")
    parser.add_argument("--sentences", type=int, default=32, help="whose missing word is asked")
    parser.add_argument("--batch", type=int, default=32, help="sentences read at a time")
    parser.add_argument("--step-sentences", type=int, default=16, help="of a training step")
    parser.add_argument("--reference-tokens", type=int, default=3, help="that the reference writes in fact")
    parser.add_argument("--reference-sentences", type=int, default=3, help="that the reference reads in fact")
    parser.add_argument("--matmul-width", type=int, default=4096)
    parser.add_argument("--copy-bytes", type=int, default=2**30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--trained", default="outputs/demo", help="a TALL that `make demo` wrote, to ask what settings cost"
    )
    parser.add_argument("--output", default="outputs/bench", help="folder for speed.json and speed.png")
    if argv is None:
        argv = sys.argv[1:]
    if "--quick" in argv:
        small = {"length": 12, "new_tokens": 6, "sentences": 8, "batch": 8, "step_sentences": 4, "reference_tokens": 6}
        small |= {"reference_sentences": 8, "matmul_width": 512, "copy_bytes": 2**24}
        parser.set_defaults(**small)
    options = parser.parse_args(argv)
    options.dtypes = ["float32"] if options.no_bfloat16 else ["float32", "bfloat16"]
    options.sizes = options.sizes or (["tiny", "microworld"] if options.quick else list(SIZES[:3]))
    return options


def main(argv: list[str] | None = None) -> dict:
    options = arguments(argv)
    options.console = Console(stderr=True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    results = run(options)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "speed.json") as path:
        path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    from benchmarks import speed_report

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
