"""The translators among the components: one for each direction of a language, or one out of several languages."""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from . import MULTILINGUAL
from .architectures import marian_tokenizer, new_translator
from .build_settings import BuildSettings
from .languages import LANGUAGES
from .training import disturbed, exact_match, round_to_bfloat16, save_component, train, translation_batches
from .world import VILLAGE, Pair, Record, World


def build_translator(
    direction: str, folder: Path, seed: int, settings: BuildSettings, language: str
) -> dict[str, dict[str, str]]:
    """Train a translator from nothing, write it to `folder`, and return its figures under its name.

    Args:
        direction: "lr_hr" (the language to English) or "hr_lr" (English to the language).
        folder: the components' folder.
        seed: decides weights, batches and sentences, and the world, of whose facts the translator reads none.
        settings: sizes of the training.
        language: code of the language.
    """
    world = World(seed, language=language)
    to_english = direction == "lr_hr"

    def oriented(pair: Pair | Record) -> tuple[str, str]:
        return (pair.text, pair.english) if to_english else (pair.english, pair.text)

    known = list(itertools.islice(world.parallel_text(seed), settings.sentences))
    pairs = [oriented(pair) for pair in known]
    (folder / direction).mkdir(parents=True)
    codes = (language, "en") if to_english else ("en", language)
    tokenizer = marian_tokenizer(*map(list, zip(*pairs, strict=True)), *codes, folder / direction)
    model = fit_translator(
        direction, tokenizer, pairs, folder / direction, seed, settings.translator_steps, settings.batch_size
    )

    texts = {pair.text for pair in known}
    stream = (pair for pair in world.parallel_text(seed + 1) if pair.text not in texts)
    fresh = list(itertools.islice(stream, settings.test_sentences))
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


def build_multilingual(
    languages: Sequence[str], folder: Path, seed: int, settings: BuildSettings, village: bool = False
) -> dict[str, dict[str, str]]:
    """Train one translator out of several languages into English, and return its figures under its name.

    Its encoder is a multilingual encoder of the world, as `compose_layer_fusion` wants one.

    Args:
        languages: codes, of which "en" means English copied to itself.
        folder: the components' folder.
        seed: as for `build_translator`.
        settings: sizes of the training.
        village: of the world of few names.
    """
    world = VILLAGE if village else {}
    read = list(itertools.islice(multilingual_text(languages, seed, seed, **world), settings.sentences))
    pairs = [pair for row in read for pair in row.values()]
    (folder / MULTILINGUAL).mkdir(parents=True, exist_ok=True)
    sentences = list(dict.fromkeys(text for pair in pairs for text in pair))
    size = settings.multilingual_pieces * len(languages)
    tokenizer = marian_tokenizer(sentences, None, "mul", "en", folder / MULTILINGUAL, size)
    steps = settings.multilingual_steps * len(languages)
    model = fit_translator(
        MULTILINGUAL,
        tokenizer,
        pairs,
        folder / MULTILINGUAL,
        seed,
        steps,
        settings.batch_size,
        noise=settings.encoder_noise,
        encoder_layers=settings.encoder_layers,
    )

    figures = {}
    known = {source for source, _ in pairs}
    for language in languages:
        stream = (row[language] for row in multilingual_text(languages, seed, seed + 1, **world))
        fresh = list(itertools.islice((pair for pair in stream if pair[0] not in known), settings.test_sentences))
        name = LANGUAGES[language].name if language in LANGUAGES else "English"
        figures[f"exact on fresh {name} sentences"] = f"{exact_match(model, tokenizer, fresh):.2%}"
    return {MULTILINGUAL: figures}


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
