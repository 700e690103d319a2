"""The rows of benchmarks/speed.py: what each of them times, on both sides, and how the answers are compared."""

import argparse
import functools
import gc
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch
from transformers import PrinterCallback, TrainerCallback

from benchmarks import budget, loading, meters, reference, sizes
from tall_hf import LastTokenCollator, TALLTrainer, TALLTrainingArguments
from tall_hf.data.translation import translation_backend
from tall_hf.training.attention import training_attention


_TRANSLATED_EVERY = 5  # epochs that one translation lasts for
_LOSS_TOLERANCE = 1e-3
_LARGE = 1e8  # parameters


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

    @property
    def is_large(self) -> bool:
        """Whether a training step is so long that counting its memory takes no time beside it."""
        return self.model.num_parameters() > _LARGE

    def seconds(self, function, repeats=1):
        return meters.seconds(function, self.options.device, repeats)

    def timed(self, function):
        return meters.timed(function, self.options.device)

    @functools.cached_property
    def int8_translate(self):
        """A function from texts to greedy int8 translations by CTranslate2, or None where it is not installed.

        Converted once, from the precision that the model has then.
        """
        if find_spec("ctranslate2") is None:
            return None
        if not self.is_random:
            sizes.start_from_zeros(self.model.encoder.translator)
        with translation_backend(self.model, self.processor, "ctranslate2", "int8", {"num_beams": 1}) as translate:
            return translate


# --- rows ------------------------------------------------------------------------------------------------------------


def completion(subject: Subject, float32: Row | None) -> list[Row]:
    """A sentence completed, at batch 1, translation included."""
    model, processor, options = subject.model, subject.processor, subject.options
    text, tokens, few = subject.texts[0], options.new_tokens, min(options.reference_tokens, options.new_tokens)
    row = Row(subject.size, f"complete a sentence by {tokens} tokens, batch 1", subject.dtype, "s", aim=40)
    reference.next_token(model, processor, text)  # warms up
    wanted, passed = subject.timed(lambda: reference.complete(model, processor, text, few))
    if float32 is None:
        row.reference, row.reference_note = passed / few * tokens, f"both: {few} of {tokens} tokens measured"
    else:
        row.reference, row.reference_note = float32.reference, "float32"
    answer, exact = subject.timed(lambda: model.complete(text, processor, max_words=few, refresh_words=1)[0])
    written = zip(answer.split(), wanted.split(), strict=False)
    same = sum(ours == theirs for ours, theirs in written) - len(text.split())
    row.equal = f"{same}/{few} tokens"
    row.put(exact / few * tokens, same == few, "rounding")

    def settled(**generation):
        translations = model.translate([text], processor, **generation)
        return model.complete(text, processor, max_words=tokens, translations=translations)

    # Both have just been warmed by what is exact.
    _, row.settings["refresh_words=0"] = subject.timed(settled)
    _, row.settings["refresh_words=0, greedy translation"] = subject.timed(lambda: settled(num_beams=1))
    if translate := subject.int8_translate:
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


def missing_word(subject: Subject, float32: list[Row | None]) -> list[Row]:
    """The next token of many sentences, and the translation that is part of it; a sentence's share of the time."""
    model, processor, options = subject.model, subject.processor, subject.options
    texts, few = subject.texts[: options.sentences], min(options.reference_sentences, options.sentences)
    row = Row(subject.size, f"missing word of {len(texts)} sentences, each", subject.dtype, "s", aim=30)
    translation = Row(subject.size, f"of which translation, by {options.batch} at a time", subject.dtype, "s")
    if float32[0] is None:
        reference.next_token(model, processor, texts[0])  # warms up
    wanted, translating = subject.timed(lambda: [reference.translate(model, processor, text) for text in texts[:few]])
    tokens, reading = subject.timed(
        lambda: [
            reference.read(model, processor, *pair)[-1].argmax().item() for pair in zip(texts, wanted, strict=False)
        ]
    )
    for one, passed, before in zip((row, translation), (translating + reading, translating), float32, strict=True):
        one.reference = passed / few if before is None else before.reference
        one.reference_note = f"{few} sentences measured" if before is None else "float32"

    def answer(translate) -> tuple[dict, dict, float, float]:
        """Translations and tokens by text, and seconds of both and of translating."""
        translated, answered, total, part = {}, {}, 0.0, 0.0
        for batch in by_length(texts, options.batch):
            translations, passed = subject.timed(lambda batch=batch: translate(batch))
            found, rest = subject.timed(
                lambda batch=batch, translations=translations: next_tokens(model, processor, batch, translations)
            )
            translated |= dict(zip(batch, translations, strict=True))
            answered |= dict(zip(batch, found, strict=True))
            total, part = total + passed + rest, part + passed
        return translated, answered, total / len(texts), part / len(texts)

    translated, answered, total, part = answer(lambda batch: model.translate(batch, processor))
    same = sum(answered[text] == token for text, token in zip(texts, tokens, strict=False))
    row.equal = f"{same}/{few} tokens"
    row.put(total, same == few, "rounding")
    same = sum(translated[text] == one for text, one in zip(texts, wanted, strict=False))
    translation.equal = f"{same}/{few} sentences"
    translation.put(part, same == few, "rounding")
    ways = {"greedy translation": lambda batch: model.translate(batch, processor, num_beams=1)}
    if subject.int8_translate:
        ways["greedy int8 translation"] = subject.int8_translate
    for name, way in ways.items():
        *_, row.settings[name], translation.settings[name] = answer(way)
    if subject.is_random:  # sentences of the little world are of many lengths
        batch, length = min(options.batch, len(texts)), options.length
        # A sentence's share: the weights are fetched once for all sentences of a batch.
        translation.stages = [
            stage.times(1 / batch)
            for stage in budget.translating(model, batch, length, length, options.beams, subject.itemsize)
        ]
        row.stages = [
            *translation.stages,
            *(
                stage.times(1 / batch)
                for stage in (
                    *budget.encoding(model, batch, length, length, subject.itemsize),
                    *budget.writing(model, batch, length, length, subject.itemsize),
                )
            ),
        ]
        row.share, translation.share = share(row, total, subject), share(translation, part, subject)
    return [row, translation]


def next_word(subject: Subject, float32: Row | None) -> list[Row]:
    """The next token of one sentence that is translated already: what a reader waits for."""
    model, processor = subject.model, subject.processor
    text, row = subject.texts[0], Row(subject.size, "next word of a translated sentence, batch 1", subject.dtype, "s")
    translation = reference.translate(model, processor, text)
    logits = reference.read(model, processor, text, translation)
    if float32 is None:
        row.reference = subject.seconds(lambda: reference.read(model, processor, text, translation), repeats=3)
    else:
        row.reference = float32.reference
    row.reference_note = "" if float32 is None else "float32"
    (token,) = next_tokens(model, processor, [text], [translation])
    same = token == logits[-1].argmax().item()
    row.equal = f"{int(same)}/1 tokens"
    row.put(subject.seconds(lambda: next_tokens(model, processor, [text], [translation]), repeats=3), same, "rounding")
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
        row.equal, same = same_loss(*training_losses(subject, batch))
        step = reference.Training(model.train())
        step.step(batch)  # warms up, as the Trainer's first step does, and makes the optimizer's moments
        make_gradients(model)
        with meters.PeakMemory(options.device) as peak:
            _, stepping = subject.timed(lambda: step.step(batch))
        if not subject.is_large:
            _, stepping = subject.timed(lambda: step.step(batch))
        model.eval()
        row.reference = one_by_one / few + stepping / len(texts)
        row.reference_note = f"translation of {few} sentences measured"
        memory.reference = peak.bytes / 1e9
        del step
    else:
        row.reference, row.reference_note, memory.reference = float32.reference, "float32", float32_memory.reference
        row.equal, same = "rounded to bfloat16", False
    stepping, peak_bytes = trained_steps(subject, rows)
    row.put((stepping + translating / _TRANSLATED_EVERY) / len(texts), same, "bfloat16, adapters in float32")
    row.settings["greedy translation"] = (stepping + greedy / _TRANSLATED_EVERY) / len(texts)
    memory.put(peak_bytes / 1e9, same, "bfloat16, adapters in float32")
    halves, halves_bytes = trained_steps(subject, rows, accumulation=2)
    row.settings["in two halves, accumulated"] = (halves + translating / _TRANSLATED_EVERY) / len(texts)
    memory.settings["in two halves, accumulated"] = halves_bytes / 1e9
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
        f"encode {options.step_sentences} sentences; the LLM alone as reference",
        subject.dtype,
        "s",
        ratio_of="ours",
        aim=2,
    )
    shape = (options.step_sentences, options.length)
    ids = torch.randint(2, 200, shape, device=options.device)
    with torch.no_grad():
        ways = {
            "reference": lambda: model.encoder.llm(input_ids=ids, use_cache=False),
            "exact": lambda: model.encoder(input_ids=ids, llm_input_ids=ids),
        }
        for way in ways.values():  # warms up
            way()
        # By turns, so that neither has the memory of the other's making, nor a quieter moment of the machine.
        times = {name: [] for name in ways}
        for _ in range(3):
            for name, way in ways.items():
                times[name].append(subject.timed(way)[1])
    row.reference, row.exact = min(times["reference"]), min(times["exact"])
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
def training_losses(subject: Subject, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The reference's loss of a batch and ours, each as its training computes it, with the same draws of dropout."""
    model, inputs = subject.model.train(), {name: batch[name] for name in batch if name != "labels"}
    torch.manual_seed(subject.options.seed)
    read = {name: inputs[name] for name in inputs if name != "decoder_attention_mask"}
    every = reference.logits(model, **read)
    theirs = torch.nn.functional.cross_entropy(every.flatten(0, 1).float(), batch["labels"].flatten())
    torch.manual_seed(subject.options.seed)
    with training_attention(inputs):
        ours = model(**batch).loss
    model.eval()
    return theirs.item(), ours.item()


def same_loss(theirs: float, ours: float) -> tuple[str, bool]:
    return f"loss {ours:.4f} and {theirs:.4f}", abs(theirs - ours) <= _LOSS_TOLERANCE


def make_gradients(model) -> None:
    """Gradients of zeros, so that the memory of a step that adds to them is without that of the gradients."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


class StepMeter(TrainerCallback):
    """Seconds of the Trainer's steps, and the memory of the last one."""

    def __init__(self, device: str, steps: int):
        self.device, self.steps = device, steps
        self.times, self.peak = [], meters.PeakMemory(device)

    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step == self.steps - 1:
            make_gradients(model)
            self.peak.__enter__()
        meters.synchronize(self.device)
        self._began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        meters.synchronize(self.device)
        self.times.append(time.perf_counter() - self._began)
        if state.global_step == self.steps:
            self.peak.__exit__(None, None, None)


def trained_steps(subject: Subject, rows, accumulation: int = 1, repeats: int = 1) -> tuple[float, int]:
    """Seconds of a step of TALLTrainer, the least of `repeats` after one that warms up, and the bytes of its last one.

    A small model's last step is made for its bytes alone. In each of several processes that were started together it is a step of
    `rows` too.
    """
    in_bfloat16 = subject.dtype == "bfloat16"
    steps = 1 + repeats + (not subject.is_large)
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
            subject.model,
            arguments,
            train_dataset=rows * arguments.world_size,
            processing_class=subject.processor,
            callbacks=[meter],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    subject.model.eval()
    del trainer
    gc.collect()
    return min(meter.times[1 : 1 + repeats]), meter.peak.bytes


def share(row: Row, seconds: float, subject: Subject) -> float:
    """Of the measured matmul rate, what the useful FLOP of a row reached."""
    rate = subject.options.ceilings[subject.dtype]["flop_per_second"]
    return sum(stage.flop for stage in row.stages) / seconds / rate
