"""The embedded default: a little world in Hebrew and English, and the three small components that were trained on it."""

from pathlib import Path

from .world import Pair, Person, Record, World


__all__ = ["COMPONENTS", "Pair", "Person", "Record", "World", "component_path"]

COMPONENTS = ("lr_hr", "llm", "hr_lr", "llm_permuted")


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
