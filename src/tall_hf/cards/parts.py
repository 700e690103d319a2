"""The parts that a model was composed of, as a card may name them: no folder of anybody's machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedConfig

from tall_hf.kinds import check_kind, kind_of
from tall_hf.microworld import component_path


ROLE_TITLES = {
    "lr_hr": "the translator in",
    "encoder": "the encoder",
    "llm": "the language model",
    "hr_lr": "the translator back",
}

# BibTeX of the checkpoints most TALLs are made of, by the beginning of their names.
_OPUS = """@inproceedings{tiedemann2020opusmt,
  title = {{OPUS-MT} -- Building open translation services for the World},
  author = {Tiedemann, J{\\"o}rg and Thottingal, Santhosh},
  booktitle = {Proceedings of the 22nd Annual Conference of the European Association for Machine Translation},
  pages = {479--480},
  year = {2020}
}"""
_ARXIV = """@article{{{key},
  title = {{{title}}},
  author = {{{author}}},
  journal = {{arXiv preprint arXiv:{number}}},
  year = {{{year}}}
}}"""
_PAPERS = {
    "facebook/nllb-": (
        "nllb2022",
        "No Language Left Behind: Scaling Human-Centered Machine Translation",
        "{NLLB Team}",
        "2207.04672",
    ),
    "facebook/m2m100": (
        "fan2020m2m100",
        "Beyond {English}-Centric Multilingual Machine Translation",
        "Fan, Angela and others",
        "2010.11125",
    ),
    "facebook/mbart-large-50": (
        "tang2020mbart50",
        "Multilingual Translation with Extensible Multilingual Pretraining and Finetuning",
        "Tang, Yuqing and others",
        "2008.00401",
    ),
    "Qwen/Qwen2.5": ("qwen2024qwen25", "{Qwen2.5} Technical Report", "{Qwen Team}", "2412.15115"),
    "Qwen/Qwen3": ("qwen2025qwen3", "{Qwen3} Technical Report", "{Qwen Team}", "2505.09388"),
    "bigscience/bloomz": (
        "muennighoff2022bloomz",
        "Crosslingual Generalization through Multitask Finetuning",
        "Muennighoff, Niklas and others",
        "2211.01786",
    ),
    "bigscience/bloom-": (
        "bigscience2022bloom",
        "{BLOOM}: A 176B-Parameter Open-Access Multilingual Language Model",
        "{BigScience Workshop}",
        "2211.05100",
    ),
}


@dataclass(frozen=True)
class Part:
    """Where one part came from: a repository at a commit, a folder, or nobody knows.

    Attributes:
        repo_id, revision: on the Hub; None for what is in no repository.
        folder: on this machine; None for what is on the Hub.
        model_type: such as "marian".
        merged_lora: whether LoRA was merged into it since.
        unfrozen: names of its modules that were trained since.
    """

    repo_id: str | None
    revision: str | None
    folder: Path | None
    model_type: str
    merged_lora: bool = False
    unfrozen: tuple[str, ...] = ()

    @property
    def is_embedded(self) -> bool:
        """Whether it is a component of the little world that comes with this package."""
        return self.folder is not None and self.folder.resolve().parent == component_path("llm").resolve().parent


def read_parts(config: PreTrainedConfig | str | os.PathLike) -> dict[str, Part]:
    """The parts by role (of a TALL "lr_hr", "llm" and "hr_lr") that a model's configuration records.

    Args:
        config: the configuration, or the folder of a saved model.
    """
    if not isinstance(config, PreTrainedConfig):
        config = check_kind(config).config_class.from_pretrained(config)
    return {
        role: origin_of((config.components or {}).get(role, {}), getattr(config, f"{role}_config").model_type)
        for role in kind_of(config).roles
    }


def origin_of(component: Mapping[str, Any], model_type: str) -> Part:
    """A part of what `compose` records of it: `name_or_path`, and a `revision` if that is on the Hub."""
    name, revision = component.get("name_or_path"), component.get("revision")
    repo_id = name if name and revision and _is_repo_id(name) else None
    return Part(
        repo_id=repo_id,
        revision=revision if repo_id else None,
        folder=Path(name) if name and not repo_id else None,
        model_type=model_type,
        merged_lora="merged_lora" in component,
        unfrozen=tuple(component.get("unfrozen", ())),
    )


def citations(parts: dict[str, Part]) -> list[str]:
    """BibTeX entries of the parts whose papers are known here, each once."""
    entries = {}
    for part in parts.values():
        name = part.repo_id or ""
        if name.startswith("Helsinki-NLP/opus-mt"):
            entries[_OPUS] = None
        for beginning, (key, title, author, number) in _PAPERS.items():
            if name.startswith(beginning):
                year = f"20{number[:2]}"
                entries[_ARXIV.format(key=key, title=title, author=author, number=number, year=year)] = None
    return list(entries)


def check_full_name(repo_id: str) -> None:
    """ValueError for what is no name of a repository with its owner's: a card repeats it in code for everybody."""
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(
            f"{repo_id!r} names no owner; write it as 'your-name/{repo_id}', or with an organisation's name."
        )


def _is_repo_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.startswith((".", "/", "~"))
