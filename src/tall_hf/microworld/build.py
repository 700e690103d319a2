"""Train the little world's components from nothing: `python -m tall_hf.microworld.build --output DIR --seed 0`.

Two Marian translators learn from the world's fact-free parallel text, a Qwen2-type language model reads its facts in
English, and a copy of that model learns the same facts in other hands. `--language` names the world's language; the
language models are the same for all of them. `--multilingual` trains one translator out of several languages instead, and
with `--village` it is one of a world of few names, beside a language model that has learned to understand what is only nearly right.
Everything is rounded to bfloat16 before it is measured, so that the figures in the folder's README.md are those of the
files beside it.
"""

import argparse
import datetime
import itertools
import json
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils import logging

from . import COMPONENTS, MULTILINGUAL, components_folder
from .architectures import marian_tokenizer, new_llm, new_translator, qwen2_tokenizer
from .languages import LANGUAGES
from .training import (
    ANSWER,
    disturbed,
    exact_match,
    knowledge,
    question_batches,
    text_batches,
    train,
    translation_batches,
)
from .vocabulary import OPENERS
from .world import VILLAGE, Pair, Record, World


@dataclass(frozen=True)
class Recipe:
    """Sizes of the trainings; the defaults are those of the shipped components.

    Attributes:
        sentences: how many sentence pairs each translator reads, again and again.
        translator_steps, llm_steps, permuted_steps: batches of each training.
        multilingual_steps, multilingual_pieces: batches and pieces of the multilingual translator, for each of its languages.
        encoder_layers: layers of the multilingual translator's encoder.
        encoder_noise, llm_noise: the greatest strength of the noise, for `disturbed`, on what that encoder makes of a source, and on
            what the village's language model reads.
        batch_size: sentences a batch.
        test_sentences: fresh sentence pairs to measure the translators on.
    """

    sentences: int = 40_000
    translator_steps: int = 700
    llm_steps: int = 2400
    permuted_steps: int = 1600
    multilingual_steps: int = 500
    multilingual_pieces: int = 1000
    encoder_layers: int = 2
    encoder_noise: float = 0.0
    llm_noise: float = 0.0
    batch_size: int = 128
    test_sentences: int = 1000


# Noise on the encoder's states leaves no room in them for what the translation does not need, such as which language was read;
# noise on what the language model reads makes it understand what is only near its embeddings.
VILLAGE_RECIPE = Recipe(
    sentences=6000,
    llm_steps=1100,
    multilingual_steps=200,
    multilingual_pieces=300,
    batch_size=64,
    encoder_layers=3,
    encoder_noise=2.0,
    llm_noise=1.0,
    test_sentences=300,
)


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


def fit_translator(
    name: str,
    tokenizer,
    pairs: list[tuple[str, str]],
    folder: Path,
    seed: int,
    steps: int,
    size: int,
    noise: float = 0.0,
    encoder_layers: int = 2,
):
    """A translator trained from nothing on (source, target) sentences, in batches of `size`, and written to `folder`.

    Args:
        noise: on what its encoder makes of a source, for `disturbed`.
        encoder_layers: of `new_translator`.
    """
    torch.manual_seed(seed)
    model = new_translator(tokenizer, encoder_layers)
    with disturbed(model.get_encoder(), noise):
        train(model, translation_batches(tokenizer, pairs, size, seed), steps, 2e-3, name)
    round_to_bfloat16(model)
    save_component(model, tokenizer, folder)
    return model


def is_determined(pair: Pair | Record) -> bool:
    """Whether the English sentence leaves only one sentence of the other language; friends and glasses have two."""
    return not {"friend", "glasses"} & set(pair.english.split())


def build_translator(
    direction: str, folder: Path, seed: int, recipe: Recipe, language: str
) -> dict[str, dict[str, str]]:
    """Train a translator from nothing, write it to `folder`, and return its figures under its name.

    Args:
        direction: "lr_hr" (the language to English) or "hr_lr" (English to the language).
        folder: the components' folder.
        seed: decides weights, batches and sentences, and the world, of whose facts the translator reads none.
        recipe: sizes of the training.
        language: code of the language.
    """
    world = World(seed, language=language)
    to_english = direction == "lr_hr"

    def oriented(pair: Pair | Record) -> tuple[str, str]:
        return (pair.text, pair.english) if to_english else (pair.english, pair.text)

    known = list(itertools.islice(world.parallel_text(seed), recipe.sentences))
    pairs = [oriented(pair) for pair in known]
    (folder / direction).mkdir(parents=True)
    codes = (language, "en") if to_english else ("en", language)
    tokenizer = marian_tokenizer(*map(list, zip(*pairs, strict=True)), *codes, folder / direction)
    model = fit_translator(
        direction, tokenizer, pairs, folder / direction, seed, recipe.translator_steps, recipe.batch_size
    )

    texts = {pair.text for pair in known}
    stream = (pair for pair in world.parallel_text(seed + 1) if pair.text not in texts)
    fresh = list(itertools.islice(stream, recipe.test_sentences))
    facts = [record for split in world.records() for record in split]
    if not to_english:
        fresh, facts = filter(is_determined, fresh), filter(is_determined, facts)
    fact_pairs = [oriented(record) for record in facts]
    if to_english:
        fact_pairs += [(record.truncated, record.english_truncated) for record in facts]
    return {
        direction: {
            "exact on fresh sentences": f"{exact_match(model, tokenizer, [oriented(pair) for pair in fresh]):.2%}",
            "exact on sentences with the world's facts": f"{exact_match(model, tokenizer, fact_pairs):.2%}",
        }
    }


def multilingual_text(
    languages: Sequence[str], seed: int, text_seed: int, **world: int
) -> Iterator[dict[str, tuple[str, str]]]:
    """Endless (source, English) sentences by language, each language saying the same, and English itself.

    The English is explicit (`Pair.english_explicit`): what one language tells, the translator is not to lose, or its encoder
    might. English sources, which "en" among the languages asks for, are in plain words too, and as they are translated from
    any of the other languages. Further arguments are the world's, such as those of `VILLAGE`.

    Raises:
        ValueError: there is no language but English.
    """
    others = [language for language in languages if language != "en"]
    if not others:
        raise ValueError(
            "a multilingual translator needs a language besides English, which is copied from its translations"
        )
    rng = random.Random(f"multilingual {seed} {text_seed}")
    streams = [World(seed, language=language, **world).parallel_text(text_seed) for language in others]
    for pairs in zip(*streams, strict=True):
        texts = {language: (pair.text, pair.english_explicit) for language, pair in zip(others, pairs, strict=True)}
        pair = rng.choice(pairs)
        english = rng.choice((pair.english, pair.english_explicit))
        yield {language: texts.get(language, (english, english)) for language in languages}


def build_multilingual(
    languages: Sequence[str], folder: Path, seed: int, recipe: Recipe, village: bool = False
) -> dict[str, dict[str, str]]:
    """Train one translator out of several languages into English, and return its figures under its name.

    Its encoder is a multilingual encoder of the world, as `compose_layer_fusion` wants one.

    Args:
        languages: codes, of which "en" means English copied to itself.
        folder: the components' folder.
        seed: as for `build_translator`.
        recipe: sizes of the training.
        village: of the world of few names.
    """
    world = VILLAGE if village else {}
    read = list(itertools.islice(multilingual_text(languages, seed, seed, **world), recipe.sentences))
    pairs = [pair for row in read for pair in row.values()]
    (folder / MULTILINGUAL).mkdir(parents=True, exist_ok=True)
    sentences = list(dict.fromkeys(text for pair in pairs for text in pair))
    size = recipe.multilingual_pieces * len(languages)
    tokenizer = marian_tokenizer(sentences, None, "mul", "en", folder / MULTILINGUAL, size)
    steps = recipe.multilingual_steps * len(languages)
    model = fit_translator(
        MULTILINGUAL,
        tokenizer,
        pairs,
        folder / MULTILINGUAL,
        seed,
        steps,
        recipe.batch_size,
        noise=recipe.encoder_noise,
        encoder_layers=recipe.encoder_layers,
    )

    figures = {}
    known = {source for source, _ in pairs}
    for language in languages:
        stream = (row[language] for row in multilingual_text(languages, seed, seed + 1, **world))
        fresh = list(itertools.islice((pair for pair in stream if pair[0] not in known), recipe.test_sentences))
        name = LANGUAGES[language].name if language in LANGUAGES else "English"
        figures[f"exact on fresh {name} sentences"] = f"{exact_match(model, tokenizer, fresh):.2%}"
    return {MULTILINGUAL: figures}


def build_tolerant_llm(folder: Path, seed: int, recipe: Recipe) -> dict[str, dict[str, str]]:
    """Train a language model on the village's facts that also knows them when it is asked not quite in their words.

    As large ones do, and the others of this little world do not, it understands questions in several orders of words, with something
    meaningless among them, and from vectors that are only near its embeddings.

    Args:
        folder: the components' folder.
        seed: decides the world, weights, batches and noise.
        recipe: sizes of the training.
    """
    world = World(seed, **VILLAGE)
    statements = world.english_text()
    facts = itertools.product(range(len(world.people)), world.relations, range(len(OPENERS)))
    questions = [
        (text, f" {world.facts[relation][entity]}")
        for entity, relation, opener in facts
        for text in world.asked_in_english(entity, relation, opener)
    ]
    tokenizer = qwen2_tokenizer([*statements, *(question + ANSWER + answer for question, answer in questions)])
    torch.manual_seed(seed)
    model = new_llm(tokenizer)
    batches = question_batches(tokenizer, statements, questions, recipe.batch_size, seed)
    with disturbed(model.get_input_embeddings(), recipe.llm_noise):
        train(model, batches, recipe.llm_steps, 3e-3, "llm")
    round_to_bfloat16(model)
    save_component(model, tokenizer, folder / "llm")
    asked = [question + ANSWER for question, _ in questions]
    known = knowledge(model, tokenizer, asked, [answer.strip() for _, answer in questions])
    return {"llm": {"knows of the facts, asked in any way": f"{known:.2%}"}}


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


def take_llms(source: Path, folder: Path, seed: int) -> dict[str, dict[str, str]]:
    """Copy both language models from other components of the same seed: they are the same for every language.

    Raises:
        ValueError: they have read the facts of another world.
    """
    figures = {}
    for name, permuted in (("llm", False), ("llm_permuted", True)):
        model = AutoModelForCausalLM.from_pretrained(source / name, dtype=torch.float32)
        known = fact_knowledge(model, AutoTokenizer.from_pretrained(source / name), World(seed, permuted))
        if known < 0.5:
            raise ValueError(
                f"{source / name} knows {known:.0%} of the facts of the world of seed {seed}; name components that were "
                "built with this seed, or none to train the language models"
            )
        figures[name] = {f"knows of the {'permuted ' * permuted}facts": f"{known:.2%}"}
        shutil.copytree(source / name, folder / name)
    return figures


def build(
    output: Path,
    seed: int = 0,
    recipe: Recipe | None = None,
    jobs: int = 2,
    language: str = "he",
    multilingual: Sequence[str] = (),
    llms: Path | None = None,
    village: bool = False,
) -> None:
    """Train components and write them, with a README.md of their figures, to the folder `output`.

    The folder is written aside and put in place whole; one that is there already is replaced if it holds components.
    The trainings run in `jobs` processes of one thread each, so that their number does not change a bit of the result.

    Args:
        output: the folder.
        seed: decides world, weights and batches.
        recipe: sizes of the trainings; those of the shipped components, or `VILLAGE_RECIPE`, when not given.
        jobs: how many processes.
        language: code of the language that the four components are for.
        multilingual: codes of languages, "en" among them for English: train one translator that reads them all, in place of
            the four components.
        llms: take both language models from this folder of components of the same seed, and do not train them.
        village: with `multilingual`, of the world of few names (`VILLAGE`), and with a language model that has read its facts.

    Raises:
        FileExistsError: `output` is a file, or a folder with something else in it.
        ValueError: an unknown language, `multilingual` without one besides English, `village` without `multilingual`, or
            `llms` of another world.
    """
    recipe = recipe or (VILLAGE_RECIPE if village else Recipe())
    output = output.absolute()
    # Whatever is wrong with the languages is said before anything is trained.
    World(seed, language=language)
    if village and not multilingual:
        raise ValueError("the village is built for a multilingual encoder: name its languages in `multilingual` too")
    if multilingual:
        next(multilingual_text(multilingual, seed, seed))
    ours = {*((MULTILINGUAL, *["llm"] * village) if multilingual else COMPONENTS), "README.md"}
    if output.exists() and not (output.is_dir() and {path.name for path in output.iterdir()} <= ours):
        raise FileExistsError(f"{output} holds something else than components; name a new or an empty folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as aside:
        staging = Path(aside) / "new"
        if multilingual:
            trainings = [(build_multilingual, multilingual, staging, seed, recipe, village)]
            if village:
                trainings.append((build_tolerant_llm, staging, seed, recipe))
            options = f"--multilingual {' '.join(multilingual)}" + " --village" * village
        else:
            trainings = [
                (take_llms, llms, staging, seed) if llms else (build_llms, staging, seed, recipe),
                (build_translator, "lr_hr", staging, seed, recipe, language),
                (build_translator, "hr_lr", staging, seed, recipe, language),
            ]
            options = f"--language {language}" + (" --llms DIR" if llms else "")
        figures: dict[str, dict[str, str]] = {}
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start_worker) as pool:
            for training in [pool.submit(*training) for training in trainings]:
                figures |= training.result()
        readme = _readme(staging, f"{options} --seed {seed}", figures, time.monotonic() - start, jobs)
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


def _readme(folder: Path, options: str, figures: dict[str, dict[str, str]], seconds: float, jobs: int) -> str:
    rows = []
    for name in filter(figures.get, (*COMPONENTS, MULTILINGUAL)):
        config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        parameters = sum(tensor.numel() for tensor in load_file(folder / name / "model.safetensors").values())
        size = sum(path.stat().st_size for path in (folder / name).iterdir())
        measured = "; ".join(f"{what}: {value}" for what, value in figures[name].items())
        rows.append(f"| `{name}` | {config['architectures'][0]} | {parameters:,} | {size / 1000:,.0f} | {measured} |")
    table = "\n".join(rows)
    return f"""# Components of the little world

Small checkpoints, trained from nothing on texts that `tall_hf.microworld.world` generates. Texts and weights are
this project's own, licensed under Apache-2.0.

    python -m tall_hf.microworld.build --output DIR {options}

writes them again, bit for bit on the same kind of machine with the same library versions. Written on
{datetime.date.today()} in {seconds:.0f} seconds by {jobs} processes of one thread each ({platform.machine()}, CPU only;
torch {torch.__version__}, transformers {transformers.__version__}).

| component | class | parameters | kB in all | measured on the stored weights |
|---|---|---|---|---|
{table}

The translators have read every name and every word, but no inhabitant of the world together with a value of a fact.
A translator out of English is measured where English leaves one sentence: not for friends and glasses, where it
loses the friend's gender and the kind of glasses. The language models are asked for every fact once, in the words
that tell those cases apart; they are the same in every language.
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the little world's components from nothing.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; replaced if it holds components")
    parser.add_argument("--seed", type=int, default=0, help="decides world, weights and batches (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2); the result is the same")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--language", choices=list(LANGUAGES), default="he", help="of the four components (default: he)"
    )
    which.add_argument(
        "--multilingual",
        nargs="+",
        choices=[*LANGUAGES, "en"],
        default=(),
        metavar="LANGUAGE",
        help=f"train {MULTILINGUAL} instead: one translator that reads these and writes English",
    )
    parser.add_argument(
        "--village",
        action="store_true",
        help="with --multilingual: of a world of few names, beside a language model that has read its facts and is tolerant",
    )
    parser.add_argument(
        "--llms",
        type=Path,
        nargs="?",
        const=components_folder(),
        metavar="DIR",
        help="take both language models from components of the same seed (the embedded ones when no folder is named) and do "
        "not train them: they are the same for every language",
    )
    options = parser.parse_args(arguments)
    build(
        options.output,
        options.seed,
        jobs=options.jobs,
        language=options.language,
        multilingual=options.multilingual,
        llms=options.llms,
        village=options.village,
    )


if __name__ == "__main__":
    main()
