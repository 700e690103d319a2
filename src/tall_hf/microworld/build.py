"""Train the embedded components from nothing: `python -m tall_hf.microworld.build --output DIR --seed 0`.

Two Marian translators learn from the world's fact-free parallel text, a Qwen2-type language model reads its facts in
English, and a copy of that model learns the same facts in other hands. Everything is rounded to bfloat16 before it is
measured, so that the figures in the folder's README.md are those of the files beside it.
"""

import argparse
import datetime
import itertools
import json
import math
import platform
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import MarianMTModel, MarianTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils import logging

from tall_hf.modeling.text_rows_tall import pad_rows

from . import COMPONENTS
from .architectures import marian_tokenizer, new_llm, new_translator, qwen2_tokenizer
from .vocabulary import OPENERS
from .world import Pair, Record, World


# --- training --------------------------------------------------------------------------------------------------------


def translation_batches(
    tokenizer: MarianTokenizer, pairs: list[tuple[str, str]], size: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches of (source, target) sentences as a Marian model's forward arguments."""
    encoded = tokenizer([source for source, _ in pairs], text_target=[target for _, target in pairs])
    rows = list(zip(encoded["input_ids"], encoded["labels"], strict=True))
    for batch in _endless(rows, size, seed):
        source, mask = pad_rows([row[0] for row in batch], tokenizer.pad_token_id, "right")
        labels, _ = pad_rows([row[1] for row in batch], -100, "right")
        yield {"input_ids": source, "attention_mask": mask, "labels": labels}


def text_batches(tokenizer: Qwen2Tokenizer, texts: list[str], size: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches of sentences, each closed by the end-of-text token, for a causal language model."""
    rows = [ids + [tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    for batch in _endless(rows, size, seed):
        labels, mask = pad_rows(batch, -100, "right")
        yield {
            "input_ids": labels.masked_fill(labels == -100, tokenizer.pad_token_id),
            "attention_mask": mask,
            "labels": labels,
        }


def _endless(rows: list, size: int, seed: int) -> Iterator[list]:
    rng = random.Random(seed)
    while True:
        rng.shuffle(rows)
        for start in range(0, len(rows) - size + 1, size):
            yield rows[start : start + size]


def train(model, batches: Iterator[dict[str, Tensor]], steps: int, learning_rate: float, title: str) -> None:
    """AdamW with a short warm-up and a cosine to zero; leaves the model in eval mode."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    bar = tqdm(itertools.islice(batches, steps), total=steps, desc=title, unit="step", mininterval=1.0)
    for batch in bar:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    model.eval()


# --- measuring -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def translate(model: MarianMTModel, tokenizer: MarianTokenizer, sentences: list[str], size: int = 200) -> list[str]:
    """Translate with the model's own generation settings."""
    translations: list[str] = []
    for start in range(0, len(sentences), size):
        inputs = tokenizer(sentences[start : start + size], return_tensors="pt", padding=True)
        outputs = model.generate(**inputs)
        translations += [tokenizer.decode(row, skip_special_tokens=True) for row in outputs]
    return translations


def exact_match(model: MarianMTModel, tokenizer: MarianTokenizer, pairs: list[tuple[str, str]]) -> float:
    """Share of the (source, target) pairs whose translation equals the target, character for character."""
    translations = translate(model, tokenizer, [source for source, _ in pairs])
    return sum(found == target for found, (_, target) in zip(translations, pairs, strict=True)) / len(pairs)


@torch.inference_mode()
def knowledge(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, prompts: list[str], words: list[str], size: int = 200
) -> float:
    """Share of the prompts after which the likeliest next token begins the wanted word."""
    hits = 0
    for start in range(0, len(prompts), size):
        inputs = tokenizer(prompts[start : start + size], return_tensors="pt", padding=True, padding_side="left")
        best = model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)
        wanted = [tokenizer(" " + word)["input_ids"][0] for word in words[start : start + size]]
        hits += sum(found == word for found, word in zip(best.tolist(), wanted, strict=True))
    return hits / len(prompts)


# --- the components --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Sizes of the trainings; the defaults are those of the shipped components.

    Attributes:
        sentences: how many sentence pairs each translator reads, again and again.
        translator_steps, llm_steps, permuted_steps: batches of each training.
        batch_size: sentences a batch.
        test_sentences: fresh sentence pairs to measure the translators on.
    """

    sentences: int = 40_000
    translator_steps: int = 700
    llm_steps: int = 2400
    permuted_steps: int = 1600
    batch_size: int = 128
    test_sentences: int = 1000


def round_to_bfloat16(model) -> None:
    """Give the weights the values that their stored form has, so that what is measured is what is shipped."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))


def save_component(model, tokenizer, folder: Path) -> None:
    """Store a model as bfloat16 safetensors, and its tokenizer, in `folder`."""
    tokenizer.save_pretrained(folder)
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(torch.float32)


def is_determined(pair: Pair | Record) -> bool:
    """Whether the English sentence leaves only one Hebrew one; friends and glasses have two."""
    return not {"friend", "glasses"} & set(pair.english.split())


def build_translator(direction: str, folder: Path, seed: int, recipe: Recipe) -> dict[str, dict[str, str]]:
    """Train a translator from nothing, write it to `folder`, and return its figures under its name.

    Args:
        direction: "lr_hr" (Hebrew to English) or "hr_lr" (English to Hebrew).
        folder: the components' folder.
        seed: decides weights, batches and sentences, and the world, of whose facts the translator reads none.
        recipe: sizes of the training.
    """
    world = World(seed)
    source, target = ("he", "en") if direction == "lr_hr" else ("en", "he")

    def oriented(pair: Pair) -> tuple[str, str]:
        return (pair.hebrew, pair.english) if source == "he" else (pair.english, pair.hebrew)

    pairs = list(itertools.islice(world.parallel_text(seed), recipe.sentences))
    (folder / direction).mkdir(parents=True)
    tokenizer = marian_tokenizer(pairs, source, target, folder / direction)
    torch.manual_seed(seed)
    model = new_translator(tokenizer)
    batches = translation_batches(tokenizer, [oriented(pair) for pair in pairs], recipe.batch_size, seed)
    train(model, batches, recipe.translator_steps, 2e-3, direction)
    round_to_bfloat16(model)
    save_component(model, tokenizer, folder / direction)

    known = {pair.hebrew for pair in pairs}
    stream = (pair for pair in world.parallel_text(seed + 1) if pair.hebrew not in known)
    fresh = list(itertools.islice(stream, recipe.test_sentences))
    facts = [record for split in world.records() for record in split]
    if source == "he":
        fact_pairs = [(record.truncated, record.english_truncated) for record in facts]
        fact_pairs += [(record.text, record.english) for record in facts]
    else:
        fresh = list(filter(is_determined, fresh))
        fact_pairs = [(record.english, record.text) for record in facts if is_determined(record)]
    return {
        direction: {
            "exact on fresh sentences": f"{exact_match(model, tokenizer, [oriented(pair) for pair in fresh]):.2%}",
            "exact on sentences with the world's facts": f"{exact_match(model, tokenizer, fact_pairs):.2%}",
        }
    }


def fact_knowledge(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, world: World) -> float:
    """Share of the world's facts that a model completes, each asked for once, in explicit words."""
    records = [
        world.record(entity, relation, (entity + turn) % len(OPENERS))
        for entity in range(len(world.people))
        for turn, relation in enumerate(world.relations)
    ]
    prompts = [record.english_explicit_prompt for record in records]
    return knowledge(model, tokenizer, prompts, [record.english_word for record in records])


def build_llms(folder: Path, seed: int, recipe: Recipe) -> dict[str, dict[str, str]]:
    """Train the language model on a world's facts, and a copy of it on the permuted ones; return their figures.

    The copy keeps its token embeddings (which are its head too), attention and norms: only what it remembers changes,
    in the feed-forward layers, so that adapters trained around the first model understand the second.
    """
    world, permuted = World(seed), World(seed, permuted=True)
    texts = world.english_text()
    tokenizer = qwen2_tokenizer(texts)
    torch.manual_seed(seed)
    model = new_llm(tokenizer)
    train(model, text_batches(tokenizer, texts, recipe.batch_size, seed), recipe.llm_steps, 3e-3, "llm")
    round_to_bfloat16(model)
    save_component(model, tokenizer, folder / "llm")
    figures = {"llm": {"knows of the facts": f"{fact_knowledge(model, tokenizer, world):.2%}"}}

    model.requires_grad_(False)
    for layer in model.model.layers:
        layer.mlp.requires_grad_(True)
    batches = text_batches(tokenizer, permuted.english_text(), recipe.batch_size, seed + 1)
    train(model, batches, recipe.permuted_steps, 2e-3, "llm_permuted")
    round_to_bfloat16(model)
    save_component(model, tokenizer, folder / "llm_permuted")
    figures["llm_permuted"] = {
        "knows of the permuted facts": f"{fact_knowledge(model, tokenizer, permuted):.2%}",
        "still gives the first facts": f"{fact_knowledge(model, tokenizer, world):.2%}",
    }
    return figures


def build(output: Path, seed: int = 0, recipe: Recipe | None = None, jobs: int = 2) -> None:
    """Train the four components and write them, with a README.md of their figures, to the folder `output`.

    The folder is written aside and put in place whole; one that is there already is replaced if it holds components.
    The trainings run in `jobs` processes of one thread each, so that their number does not change a bit of the result.

    Raises:
        FileExistsError: `output` is a file, or a folder with something else in it.
    """
    recipe = recipe or Recipe()
    output = output.absolute()
    ours = {*COMPONENTS, "README.md"}
    if output.exists() and not (output.is_dir() and {path.name for path in output.iterdir()} <= ours):
        raise FileExistsError(f"{output} holds something else than components; name a new or an empty folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as aside:
        staging = Path(aside) / "new"
        figures: dict[str, dict[str, str]] = {}
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start_worker) as pool:
            trainings = [
                pool.submit(build_llms, staging, seed, recipe),
                pool.submit(build_translator, "lr_hr", staging, seed, recipe),
                pool.submit(build_translator, "hr_lr", staging, seed, recipe),
            ]
            for training in trainings:
                figures |= training.result()
        readme = _readme(staging, seed, figures, time.monotonic() - start, jobs)
        (staging / "README.md").write_text(readme, encoding="utf-8")
        if output.exists():
            output.rename(Path(aside) / "old")
        staging.rename(output)
    print(f"Wrote the components to {output}")


def _start_worker() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _readme(folder: Path, seed: int, figures: dict[str, dict[str, str]], seconds: float, jobs: int) -> str:
    rows = []
    for name in COMPONENTS:
        config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        parameters = sum(tensor.numel() for tensor in load_file(folder / name / "model.safetensors").values())
        size = sum(path.stat().st_size for path in (folder / name).iterdir())
        measured = "; ".join(f"{what}: {value}" for what, value in figures[name].items())
        rows.append(f"| `{name}` | {config['architectures'][0]} | {parameters:,} | {size / 1000:,.0f} | {measured} |")
    table = "\n".join(rows)
    return f"""# Components of the little world

Four small checkpoints, trained from nothing on texts that `tall_hf.microworld.world` generates. Texts and weights are
this project's own, licensed under Apache-2.0.

    python -m tall_hf.microworld.build --output DIR --seed {seed}

writes them again, bit for bit on the same kind of machine with the same library versions. Written on
{datetime.date.today()} in {seconds:.0f} seconds by {jobs} processes of one thread each ({platform.machine()}, CPU only;
torch {torch.__version__}, transformers {transformers.__version__}).

| component | class | parameters | kB in all | measured on the stored weights |
|---|---|---|---|---|
{table}

The translators have read every name and every word, but no inhabitant of the world together with a value of a fact.
English to Hebrew is measured where English leaves one Hebrew sentence: not for friends and glasses, where it
loses the friend's gender and the kind of glasses. The language models are asked for every fact once, in the words
that tell those cases apart.
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the little world's four components from nothing.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; replaced if it holds components")
    parser.add_argument("--seed", type=int, default=0, help="decides world, weights and batches (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2); the result is the same")
    options = parser.parse_args(arguments)
    build(options.output, options.seed, jobs=options.jobs)


if __name__ == "__main__":
    main()
