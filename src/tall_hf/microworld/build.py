"""Train the little world's components from nothing: `python -m tall_hf.microworld.build --output DIR --seed 0`.

Two Marian translators learn from the world's fact-free parallel text, a Qwen2-type language model reads its facts in
English, and a copy of that model learns the same facts in other hands. `--language` names the world's language; the
language models are the same for all of them. `--multilingual` trains one translator out of several languages instead, and
with `--village` it is one of a world of few names, beside a language model that has learned to understand what is only
nearly right.
Everything is rounded to bfloat16 before it is measured, so that the figures in the folder's README.md are those of the
files beside it.
"""

import argparse
import datetime
import json
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers.utils import logging

from tall_hf.files import staged_folder

from . import COMPONENTS, MULTILINGUAL, components_folder
from .build_llms import build_llms, build_tolerant_llm, take_llms
from .build_settings import VILLAGE_SETTINGS, BuildSettings
from .build_translators import build_multilingual, build_translator, multilingual_text
from .languages import LANGUAGES
from .world import World


def build(
    output: Path,
    seed: int = 0,
    settings: BuildSettings | None = None,
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
        settings: sizes of the trainings; those of the shipped components, or `VILLAGE_SETTINGS`, when not given.
        jobs: how many processes.
        language: code of the language that the four components are for.
        multilingual: codes of languages, "en" among them for English: train one translator that reads them all, in place of
            the four components.
        llms: take both language models from this folder of components of the same seed, and do not train them.
        village: with `multilingual`, of the world of few names (`VILLAGE`), and with a language model that has read its facts.

    Raises:
        BlockingIOError: another process is building that folder.
        FileExistsError: `output` is a file, or a folder with something else in it.
        ValueError: an unknown language, `multilingual` without one besides English, `village` without `multilingual`, or
            `llms` of another world.
    """
    settings = settings or (VILLAGE_SETTINGS if village else BuildSettings())
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
    start = time.monotonic()
    with staged_folder(output) as staging:
        if multilingual:
            trainings = [(build_multilingual, multilingual, staging, seed, settings, village)]
            if village:
                trainings.append((build_tolerant_llm, staging, seed, settings))
            options = f"--multilingual {' '.join(multilingual)}" + " --village" * village
        else:
            trainings = [
                (take_llms, llms, staging, seed) if llms else (build_llms, staging, seed, settings),
                (build_translator, "lr_hr", staging, seed, settings, language),
                (build_translator, "hr_lr", staging, seed, settings, language),
            ]
            options = f"--language {language}" + (" --llms DIR" if llms else "")
        figures: dict[str, dict[str, str]] = {}
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start_worker) as pool:
            for training in [pool.submit(*training) for training in trainings]:
                figures |= training.result()
        readme = _readme(staging, f"{options} --seed {seed}", figures, time.monotonic() - start, jobs)
        (staging / "README.md").write_text(readme, encoding="utf-8")
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
