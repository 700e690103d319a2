"""Is it the LLM's knowledge that a TALL answers with? The little world's held-out people, with controls, over seeds.

Each seed holds out another quarter of the people and trains the demo's adapters anew around each of these:

- gated: the demo's model;
- random LLM: the same architecture with random weights;
- no LLM: the LLM's token embeddings and no layers;
- no source path: source_bridge="none", so that only the translation reaches the LLM;
- reference translation: people's own English in place of the translator's;
- bad translation: half of the translator's words, drawn by the sentence, are other words of the translations.

The gated model is also asked after its LLM was exchanged, without any training, for one that has read permuted facts.
Every run is kept as a JSON file of its own, so an interrupted benchmark goes on where it stopped. A run, one variant on
one seed, takes about 100 seconds on two free cores. By default there is one, the gated model on seed 0; all variants over
five seeds are 30 runs, some 50 minutes:

    python benchmarks/microworld_controls.py
    python benchmarks/microworld_controls.py --seeds 5 --variants all

In another language, with components that `python -m tall_hf.microworld.build --language tr --output DIR` wrote:

    python benchmarks/microworld_controls.py --language tr --components DIR --output outputs/microworld_controls_tr
"""

import argparse
import dataclasses
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, Qwen2Model, set_seed
from transformers.utils import logging

from tall_hf import compose
from tall_hf.components import ROLES
from tall_hf.files import atomic_write
from tall_hf.measuring.statistics import load_metric
from tall_hf.microworld import LANGUAGES, World, components_folder
from tall_hf.microworld.demo import Recipe, majority_words, predict_words, train_adapters, training_rows, translate
from tall_hf.microworld.vocabulary import OPENERS


VARIANTS = ("gated", "random LLM", "no LLM", "no source path", "reference translation", "bad translation")
# What must not know the facts.
CONTROLS = ("random LLM", "no LLM")
SWAPPED = "permuted LLM"


def llm_folder(variant: str, components: Path, folder: Path) -> Path:
    """The LLM that a variant is composed with: the component, or one of random weights written to `folder`."""
    if variant != "random LLM":
        return components / "llm"
    Qwen2Model(AutoConfig.from_pretrained(components / "llm")).save_pretrained(folder)
    AutoTokenizer.from_pretrained(components / "llm").save_pretrained(folder)
    return folder


def spoiled(translations: dict[str, str]) -> dict[str, str]:
    """Translations in which every other word, on average, is one of all the words that translations have."""
    words = sorted({word for text in translations.values() for word in text.split()})

    def spoil(source: str, text: str) -> str:
        rng = random.Random(source)
        return " ".join(rng.choice(words) if rng.random() < 0.5 else word for word in text.split())

    return {source: spoil(source, text) for source, text in translations.items()}


def run(
    variant: str,
    seed: int,
    recipe: Recipe,
    components: Path,
    world: World,
    permuted: World,
    translations: dict[str, str],
) -> dict:
    """Train one variant on one split; right answers and questions of each relation, and the chance level."""
    set_seed(seed)
    train_records, held_out = world.records(seed)
    if variant == "reference translation":
        translations = {record.truncated: record.english_truncated for record in (*train_records, *held_out)}
    elif variant == "bad translation":
        translations = spoiled(translations)
    switches = {"alignment_dropout": recipe.alignment_dropout, "warm_start": recipe.warm_start}
    switches["gate_init"] = recipe.gate_init
    switches["source_bridge"] = "none" if variant == "no source path" else recipe.source_bridge
    with tempfile.TemporaryDirectory() as folder:
        model, processor = compose(
            lr_hr=components / "lr_hr",
            llm=llm_folder(variant, components, Path(folder)),
            hr_lr=components / "hr_lr",
            leave_out_llm=variant == "no LLM",
            **switches,
        )
    rows = training_rows(processor, train_records, [translations[record.truncated] for record in train_records])
    train_adapters(model, processor, rows, recipe, seed)

    def answers():
        asked = [record.truncated for record in held_out]
        return predict_words(model, processor, asked, [translations[text] for text in asked])

    right = [record.missing_word for record in held_out]
    counts = {variant: count(held_out, answers(), right)}
    if variant == "gated":
        counts["majority"] = count(held_out, majority_words(train_records, held_out), right)
        other = AutoModel.from_pretrained(components / "llm_permuted", dtype=torch.float32, use_safetensors=True)
        model.encoder.llm.load_state_dict(other.state_dict())
        new_facts = [permuted.record(record.entity, record.relation).missing_word for record in held_out]
        counts[SWAPPED] = count(held_out, answers(), new_facts)
    return counts


def count(records, words, wanted) -> dict[str, list[int]]:
    """[right, asked] of each relation."""
    counts: dict[str, list[int]] = {}
    for record, word, want in zip(records, words, wanted, strict=True):
        tally = counts.setdefault(record.relation, [0, 0])
        tally[0] += word == want
        tally[1] += 1
    return counts


def chance_level(world: World, relation: str, seeds: int) -> float:
    """Majority-value rate: the share of the commonest word among the train people, averaged over the splits."""
    rates = []
    for seed in range(seeds):
        words = [world.record(entity, relation).missing_word for entity in world.split(seed)[0]]
        rates.append(max(map(words.count, words)) / len(words))
    return sum(rates) / len(rates)


def report(world: World, runs: list[dict], seeds: int) -> str:
    """The markdown table of all seeds together, and whether the controls stay at chance."""
    columns = [column for column in (*VARIANTS, SWAPPED) if any(column in run for run in runs)]
    lines = [
        "| relation | kind | questions | chance | " + " | ".join(columns) + " |",
        "|---" * (4 + len(columns)) + "|",
    ]
    too_good = []
    for name in world.relations:
        totals = {}
        for column in columns:
            tallies = [run[column][name] for run in runs if column in run]
            totals[column] = (sum(right for right, _ in tallies), sum(asked for _, asked in tallies))
        chance = chance_level(world, name, seeds)
        cells = []
        for column, (right, asked) in totals.items():
            low, high = load_metric().wilson_interval(right / asked, asked)
            cells.append(f"{right / asked:.3f} [{low:.3f}, {high:.3f}]")
            if column in CONTROLS and not (low <= chance <= high or high < 2 * chance):
                too_good.append(f"{column} on {name}")
        lines.append(
            f"| {name} | {world.kind(name)} | {totals[columns[0]][1]} | {chance:.3f} | " + " | ".join(cells) + " |"
        )
    verdict = "Every control's interval contains chance or lies below twice it."
    if not set(CONTROLS) & set(columns):
        verdict = f"Without the controls: {' and '.join(CONTROLS)} come with --variants all."
    elif too_good:
        verdict = f"Controls whose interval neither contains chance nor lies below twice it: {', '.join(too_good)}."
    return "\n".join([*lines, "", verdict, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many splits (default: 1)")
    parser.add_argument(
        "--variants", nargs="+", choices=(*VARIANTS, "all"), default=["gated"], help="which (default: gated)"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, help=f"training steps (default: {Recipe.steps})")
    parser.add_argument("--language", choices=list(LANGUAGES), default="he", help="the world's language (default: he)")
    parser.add_argument(
        "--components", type=Path, help="folder of its components (default: the embedded, Hebrew ones)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--output", type=Path, default=Path("outputs/microworld_controls"), help="folder for the runs")
    options = parser.parse_args()
    load_metric()  # what is missing is missed now, not after hours of training
    variants = VARIANTS if "all" in options.variants else options.variants
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    recipe = dataclasses.replace(Recipe(), steps=options.steps)
    try:
        components = components_folder(options.language, options.components)
    except ValueError as error:
        parser.error(str(error))
    options.output.mkdir(parents=True, exist_ok=True)
    world, permuted = World(language=options.language), World(permuted=True, language=options.language)

    translations: dict[str, str] = {}
    runs = []
    for seed in range(options.seeds):
        for variant in variants:
            settings = {"variant": variant, "seed": seed, "recipe": dataclasses.asdict(recipe)}
            if options.language != "he":  # which runs kept from before there was another do not name
                settings["language"] = options.language
            path = options.output / f"{variant.replace(' ', '_')}-{seed}.json"
            if path.exists():
                kept = json.loads(path.read_text(encoding="utf-8"))
                if kept["settings"] != settings:
                    parser.error(f"{path} was made with {kept['settings']}, not {settings}; name another --output")
            else:
                if not translations:
                    people, openers = range(len(world.people)), range(len(OPENERS))
                    told = itertools.product(people, world.relations, openers)
                    texts = [world.record(*fact).truncated for fact in told]
                    model, processor = compose(*(components / role for role in ROLES), source_bridge="none")
                    translations = dict(zip(texts, translate(model, processor, texts), strict=True))
                start = time.monotonic()
                counts = run(variant, seed, recipe, components, world, permuted, translations)
                kept = {"settings": settings, "seconds": round(time.monotonic() - start), "counts": counts}
                with atomic_write(path) as aside:
                    aside.write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding="utf-8")
            runs.append(kept["counts"])
            shares = {
                name: sum(right for right, _ in tallies.values()) / sum(asked for _, asked in tallies.values())
                for name, tallies in kept["counts"].items()
            }
            print(f"seed {seed}:", ", ".join(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
    table = report(world, runs, options.seeds)
    with atomic_write(options.output / "table.md") as aside:
        aside.write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
