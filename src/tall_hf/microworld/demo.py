"""What `tall demo` runs: compose the embedded parts, train the adapters, compare, save, and reload without this package.

Everything happens offline, in minutes on two CPU cores. The questions are about people of whom the adapters have read
nothing and only the language model has, in English.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

from tall_hf.components import ROLES, compose
from tall_hf.data import LastTokenCollator
from tall_hf.imports import library_paths
from tall_hf.saving import check_output, save

from . import components_folder
from .world import Record, World


KINDS = {
    "same_order": "same word order",
    "different_order": "other word order in English",
    "lossy": "lost in translation",
}


@dataclass(frozen=True)
class Recipe:
    """How the adapters are trained; the defaults are what the demo shows.

    Attributes:
        source_bridge: a switch of TALLConfig.
        steps: optimizer steps.
        batch_size: sentences a step.
        learning_rate: its peak, reached after a tenth of the steps; a cosine leads back to zero.
        gate_learning_rate: the same for the gated bridge's gate, a single number that has to move far.
        weight_decay: of AdamW, on the adapters and not on the gate.
        warm_start: as in `compose`.
        gate_init, alignment_dropout: switches of TALLConfig.
    """

    source_bridge: str = "gated"
    steps: int = 800
    batch_size: int = 48
    learning_rate: float = 1e-3
    gate_learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warm_start: bool = True
    gate_init: float = 0.2
    alignment_dropout: float = 0.1


@dataclass(frozen=True)
class DemoResult:
    """What the demo found: `accuracy` of each approach by relation, `next_words` of each asked text, and the folder."""

    accuracy: dict[str, dict[str, float]]
    next_words: dict[str, list[tuple[str, float]]]
    output: Path


# --- data and training -----------------------------------------------------------------------------------------------


def translate(model, processor, texts: list[str], batch_size: int = 256) -> list[str]:
    """Translate with the model's frozen LR→HR translator, showing progress."""
    translations = []
    for start in track(range(0, len(texts), batch_size), description=f"Translating {len(texts):,} sentences"):
        translations += model.translate(texts[start : start + batch_size], processor)
    return translations


def training_rows(processor, records: list[Record], translations: list[str]) -> list[dict[str, list[int]]]:
    """Token ids of each record as LastTokenCollator reads them."""
    encoded = processor(
        text=[record.truncated for record in records],
        translations=translations,
        text_target=[record.text for record in records],
    )
    return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]


def adapter_optimizer(model, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over the adapters, with a learning rate of its own for the gate, if there is one."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gates = [parameter for name, parameter in trained.items() if name == "encoder.gate"]
    others = [parameter for name, parameter in trained.items() if name != "encoder.gate"]
    groups = [{"params": others}, {"params": gates, "lr": recipe.gate_learning_rate, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )


def train_adapters(model, processor, rows: list[dict[str, list[int]]], recipe: Recipe, seed: int = 0) -> None:
    """Train with transformers' Trainer; leaves the model in evaluation mode."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch_size,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, recipe.steps // 10),
            max_grad_norm=1.0,
            logging_steps=max(1, recipe.steps // 4),
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=False,
            seed=seed,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=LastTokenCollator(processor, loss_positions="last_word"),
            optimizers=(adapter_optimizer(model, recipe), None),
        ).train()
    model.eval()


# --- approaches ------------------------------------------------------------------------------------------------------


def predict_words(model, processor, texts: list[str], translations: list[str], batch_size: int = 200) -> list[str]:
    """The most probable next word of each text."""
    words = []
    for start in range(0, len(texts), batch_size):
        batch = slice(start, start + batch_size)
        answers = model.next_words(texts[batch], processor, top_k=1, translations=translations[batch], num_beams=4)
        words += [answer[0][0] if answer else "" for answer in answers]
    return words


@torch.inference_mode()
def naive_words(
    llm, llm_tokenizer, hr_lr, hr_lr_tokenizer, translations: list[str], batch_size: int = 200
) -> list[str]:
    """Naive translation: the LLM adds one English word to the translation, all is translated back, the last word counts."""
    words = []
    for start in range(0, len(translations), batch_size):
        batch = translations[start : start + batch_size]
        inputs = llm_tokenizer(batch, return_tensors="pt", padding=True, padding_side="left").to(llm.device)
        continued = llm.generate(**inputs, max_new_tokens=8, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        added = [text.split()[:1] for text in llm_tokenizer.batch_decode(continued, skip_special_tokens=True)]
        english = [" ".join([text, *word]) for text, word in zip(batch, added, strict=True)]
        inputs = hr_lr_tokenizer(english, return_tensors="pt", padding=True).to(hr_lr.device)
        sentences = hr_lr_tokenizer.batch_decode(hr_lr.generate(**inputs), skip_special_tokens=True)
        words += [sentence.split()[-1] if sentence.split() else "" for sentence in sentences]
    return words


def majority_words(records: list[Record], asked: list[Record]) -> list[str]:
    """For each asked record the commonest missing word that `records` show for its relation."""
    counts: dict[str, Counter] = {}
    for record in records:
        counts.setdefault(record.relation, Counter())[record.missing_word] += 1
    return [counts[record.relation].most_common(1)[0][0] for record in asked]


def accuracy(records: list[Record], words: list[str]) -> dict[str, float]:
    """Share of right words by relation, and under "all" over all of them."""
    hits: dict[str, list[bool]] = {}
    for record, word in zip(records, words, strict=True):
        for name in (record.relation, "all"):
            hits.setdefault(name, []).append(word == record.missing_word)
    return {name: sum(right) / len(right) for name, right in hits.items()}


# --- a process that knows nothing of us ------------------------------------------------------------------------------


# Runs in an interpreter of its own. Replacing the path finder hides this package however it was installed.
_FRESH_PROCESS = """
import importlib.util, json, sys
from importlib.machinery import PathFinder

class WithoutTall(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] == "tall_hf" else PathFinder.find_spec(fullname, path, target)

request = json.load(sys.stdin)
sys.path += request["paths"]
sys.meta_path[:] = [WithoutTall if finder is PathFinder else finder for finder in sys.meta_path]
assert importlib.util.find_spec("tall_hf") is None, "the fresh process can still import tall_hf"

from transformers import AutoModelForCausalLM, AutoProcessor
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
model = AutoModelForCausalLM.from_pretrained(request["folder"], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(request["folder"], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
print(json.dumps(model.next_words(request["texts"], processor, top_k=request["top_k"])))
"""


def next_words_in_fresh_process(folder: Path, texts: list[str], top_k: int = 3) -> list[list[tuple[str, float]]]:
    """Load a saved TALL offline in a new interpreter without this package, and ask it for the next words of `texts`.

    Raises:
        RuntimeError: the process failed; its error output is in the message.
    """
    request = {"folder": str(folder.absolute()), "texts": texts, "top_k": top_k, "paths": library_paths()}
    with tempfile.TemporaryDirectory() as modules:
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": modules,  # the copied model code: nothing of it outlives the demo
            "PYTHONIOENCODING": "utf-8",
            "TOKENIZERS_PARALLELISM": "false",
        }
        done = subprocess.run(
            # -S: no site-packages hooks, -I: neither PYTHONPATH nor the working directory.
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _FRESH_PROCESS],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"Reloading {folder} in a fresh process failed:\n{done.stderr}")
    return [[(word, probability) for word, probability in words] for words in json.loads(done.stdout)]


# --- what is shown ---------------------------------------------------------------------------------------------------


def note_on(text: str, world: World, processor) -> str:
    """What a reader should know before believing the next word of a text of their own; empty if nothing."""
    if not re.search(f"[{world.language.letters}]", text):
        return f"no {world.language.name} in it: the answer means nothing"
    tokenizer = processor.source_tokenizer
    if tokenizer.unk_token_id in tokenizer(text)["input_ids"]:
        return "has characters that the little translator never read"
    if not any(world.language.subject(person.english) in text for person in world.people):
        return "names nobody of this world: a guess"
    return ""


def check_texts(texts: Iterable[str], world: World) -> list[str]:
    """The texts without surrounding spaces.

    Raises:
        ValueError: one of them is empty.
    """
    texts = [text.strip() for text in texts]
    if "" in texts:
        raise ValueError(
            f"Text {texts.index('') + 1} is empty; write the beginning of a {world.language.name} sentence, for instance "
            f"{world.record(0, 'city').truncated!r}."
        )
    return texts


def comparison_table(world: World, results: dict[str, dict[str, float]], questions: int) -> Table:
    """One row a relation, one column an approach, and the averages of each kind of relation."""
    table = Table(title=f"The right word, on {questions} questions about held-out people", title_justify="left")
    table.add_column("relation")
    table.add_column("kind")
    for name in results:
        table.add_column(name, justify="right")
    for kind, title in KINDS.items():
        for relation in (relation for relation in world.relations if world.kind(relation) == kind):
            table.add_row(relation, title, *(f"{result[relation]:.0%}" for result in results.values()))
        table.add_section()
    table.add_row("all", "", *(f"{result['all']:.1%}" for result in results.values()), style="bold")
    return table


def next_word_table(texts: list[str], answers, expected: list[str], notes: list[str]) -> Table:
    """Sentences and their next words, in columns of their own, the last ones: Hebrew reads from the right."""
    table = Table(title="Next words, from a fresh process without tall_hf", title_justify="left", show_lines=True)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("next word", justify="right", no_wrap=True)
    table.add_column("true word", justify="right", no_wrap=True)
    table.add_column("sentence", justify="right")
    if any(notes):
        table.add_column("note")
    for text, words, word, note in zip(texts, answers, expected, notes, strict=True):
        cells = [
            "\n".join(f"{probability:.3f}" for _, probability in words),
            "\n".join(found for found, _ in words),
            word,
            text,
        ]
        table.add_row(*cells, *([note] if any(notes) else []))
    return table


def demo(
    texts: Iterable[str] = (),
    output: str | os.PathLike | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    max_people: int | None = None,
    max_questions: int | None = None,
    console: Console | None = None,
    language: str = "he",
    components: str | os.PathLike | None = None,
) -> DemoResult:
    """Compose, train, compare, save, reload in a fresh process and answer, all offline.

    Args:
        texts: beginnings of sentences of the reader's own, to be answered after the examples.
        output: folder for the trained TALL; `outputs/demo` when not given.
        seed: which people are held out, and the adapters' first weights.
        recipe: how the adapters are trained.
        max_people: learn from sentences about only so many people; all but the held-out ones when not given.
        max_questions: ask only so many held-out questions; all of them when not given.
        console: where to print.
        language: code of the world's language.
        components: folder that `tall_hf.microworld.build` wrote for that language with seed 0; the embedded ones, which are
            Hebrew, when not given.

    Returns:
        The accuracies by approach and relation, the next words by text, and the folder.

    Raises:
        ValueError: an empty text, or a language without components.
        FileExistsError: `output` holds something that is not a saved TALL.
        RuntimeError: the fresh process failed.
    """
    began = time.monotonic()
    world = World(language=language)
    folder = components_folder(language, components)
    texts = check_texts(texts, world)
    output = Path(output or Path("outputs") / "demo")
    check_output(output)
    recipe = recipe or Recipe()
    console = console or Console()
    logging.disable_progress_bar()  # of loading weights; the Trainer's and the translation's bars stay
    set_seed(seed)

    train_records, held_out = world.records(seed)
    learned = set(world.split(seed)[0][:max_people])
    train_records = [record for record in train_records if record.entity in learned]
    held_out = held_out[:max_questions]
    console.print(
        f"[bold]A little world[/bold]: {len(world.people)} people, {len(world.relations)} facts each. A language model has "
        "read the facts, in English only; two translators know the words and no fact.\nThe adapters learn from "
        f"{world.language.name} sentences about some people ({len(train_records):,} sentences) and are asked about the others."
    )
    lr_hr, llm, hr_lr = (folder / name for name in ROLES)
    model, processor = compose(
        lr_hr=lr_hr,
        llm=llm,
        hr_lr=hr_lr,
        source_bridge=recipe.source_bridge,
        gate_init=recipe.gate_init,
        alignment_dropout=recipe.alignment_dropout,
        warm_start=recipe.warm_start,
    )
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    console.print(
        f"Composed a TALL of {model.num_parameters():,} parameters, {trainable:,} of them in trained adapters."
    )

    translations = translate(model, processor, [record.truncated for record in train_records + held_out])
    train_translations = translations[: len(train_records)]
    held_out_translations = translations[len(train_records) :]
    train_adapters(model, processor, training_rows(processor, train_records, train_translations), recipe, seed)

    naive = naive_words(
        AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32, use_safetensors=True),
        AutoTokenizer.from_pretrained(llm),
        AutoModelForSeq2SeqLM.from_pretrained(hr_lr, dtype=torch.float32, use_safetensors=True),
        AutoTokenizer.from_pretrained(hr_lr),
        held_out_translations,
    )
    asked = [record.truncated for record in held_out]
    results = {
        "TALL": accuracy(held_out, predict_words(model, processor, asked, held_out_translations)),
        "naive translation": accuracy(held_out, naive),
        "majority word (chance)": accuracy(held_out, majority_words(train_records, held_out)),
    }
    console.print(comparison_table(world, results, len(held_out)))

    save(model, processor, output)
    console.print(f"Saved to [bold]{output}[/bold]. Reloading it in a fresh process that cannot import tall_hf ...")
    examples = [next(record for record in held_out if record.relation == relation) for relation in world.relations]
    shown = [record.truncated for record in examples] + texts
    answers = next_words_in_fresh_process(output, shown)
    expected = [record.missing_word for record in examples] + ["?"] * len(texts)
    notes = [""] * len(examples) + [note_on(text, world, processor) for text in texts]
    console.print(next_word_table(shown, answers, expected, notes))
    console.print(
        f"Done in {time.monotonic() - began:.0f} seconds. Next, your own language: name a translator out of it, a language "
        "model and a translator back, and a file of sentences,\n\n"
        "    tall compose --lr-hr Helsinki-NLP/opus-mt-tc-big-he-en --llm Qwen/Qwen2.5-0.5B "
        "--hr-lr Helsinki-NLP/opus-mt-en-he --bridge gated --gate-init 0.2 --output outputs/mine\n"
        "    tall prepare text.txt --model outputs/mine --output outputs/data\n"
        "    tall train --model outputs/mine --dataset outputs/data --output_dir outputs/trained",
        highlight=False,
        soft_wrap=True,
    )
    return DemoResult(accuracy=results, next_words=dict(zip(shown, answers, strict=True)), output=output)
