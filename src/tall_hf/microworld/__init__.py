"""A little world in several languages, and the embedded default: the small components that were trained on it in Hebrew."""

import os
from pathlib import Path

from .languages import LANGUAGES
from .world import VILLAGE, Pair, Person, Question, Record, World


__all__ = [
    "COMPONENTS",
    "LANGUAGES",
    "MULTILINGUAL",
    "VILLAGE",
    "Pair",
    "Person",
    "Question",
    "Record",
    "World",
    "component_path",
    "components_folder",
]

COMPONENTS = ("lr_hr", "llm", "hr_lr", "llm_permuted")
# What `build --multilingual` makes: a translator that reads several languages and writes English.
MULTILINGUAL = "many_en"


def component_path(name: str) -> Path:
    """The folder of an embedded component, ready for `from_pretrained`.

    Args:
        name: "lr_hr" (Hebrew to English), "llm" (has read the world's facts in English), "hr_lr" (English to Hebrew), or
            "llm_permuted" (the same language model after the facts changed hands).

    Raises:
        ValueError: the world has no such component.
    """
    if name not in COMPONENTS:
        raise ValueError(f"no embedded component is called {name!r}: choose from {', '.join(COMPONENTS)}")
    return Path(__file__).parent / "components" / name


def components_folder(language: str = "he", folder: str | os.PathLike | None = None) -> Path:
    """The folder that holds a language's components: the given one, or the embedded one, which is Hebrew.

    Raises:
        ValueError: another language without a folder.
    """
    if folder is None and language != "he":
        raise ValueError(
            f"the embedded components are Hebrew: write those of {language!r} with `python -m tall_hf.microworld.build "
            f"--language {language} --output DIR` and name that folder"
        )
    return component_path("llm").parent if folder is None else Path(folder)
