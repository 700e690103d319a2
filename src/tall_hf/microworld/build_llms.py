"""The language models among the components: of a world's facts, of the same facts in other hands, and the village's."""

import itertools
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

from .architectures import new_llm, qwen2_tokenizer
from .build_settings import BuildSettings
from .training import (
    ANSWER,
    disturbed,
    knowledge,
    question_batches,
    round_to_bfloat16,
    save_component,
    text_batches,
    train,
)
from .vocabulary import OPENERS
from .world import VILLAGE, World


def build_llms(folder: Path, seed: int, settings: BuildSettings) -> dict[str, dict[str, str]]:
    """Train the language model on a world's facts, and a copy of it on the permuted ones; return their figures.

    The copy keeps its token embeddings (which are its head too), attention and norms: only what it remembers changes,
    in the feed-forward layers, so that adapters trained around the first model understand the second.
    """
    world, permuted = World(seed), World(seed, permuted=True)
    texts = world.english_text()
    tokenizer = qwen2_tokenizer(texts)
    torch.manual_seed(seed)
    model = new_llm(tokenizer)
    train(model, text_batches(tokenizer, texts, settings.batch_size, seed), settings.llm_steps, 3e-3, "llm")
    round_to_bfloat16(model)
    save_component(model, tokenizer, folder / "llm")
    figures = {"llm": {"knows of the facts": f"{fact_knowledge(model, tokenizer, world):.2%}"}}

    model.requires_grad_(False)
    for layer in model.model.layers:
        layer.mlp.requires_grad_(True)
    batches = text_batches(tokenizer, permuted.english_text(), settings.batch_size, seed + 1)
    train(model, batches, settings.permuted_steps, 2e-3, "llm_permuted")
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
        model = AutoModelForCausalLM.from_pretrained(source / name, dtype=torch.float32, use_safetensors=True)
        known = fact_knowledge(model, AutoTokenizer.from_pretrained(source / name), World(seed, permuted))
        if known < 0.5:
            raise ValueError(
                f"{source / name} knows {known:.0%} of the facts of the world of seed {seed}; name components that were "
                "built with this seed, or none to train the language models"
            )
        figures[name] = {f"knows of the {'permuted ' * permuted}facts": f"{known:.2%}"}
        shutil.copytree(source / name, folder / name)
    return figures


def build_tolerant_llm(folder: Path, seed: int, settings: BuildSettings) -> dict[str, dict[str, str]]:
    """Train a language model on the village's facts that also knows them when it is asked not quite in their words.

    As large ones do, and the others of this little world do not, it understands questions in several orders of words, with
    something meaningless among them, and from vectors that are only near its embeddings.

    Args:
        folder: the components' folder.
        seed: decides the world, weights, batches and noise.
        settings: sizes of the training.
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
    batches = question_batches(tokenizer, statements, questions, settings.batch_size, seed)
    train(model, batches, settings.llm_steps, 3e-3, "llm")
    with disturbed(model.get_input_embeddings(), settings.llm_noise):
        train(model, batches, settings.noisy_llm_steps, 3e-3, "llm, with noise")
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
