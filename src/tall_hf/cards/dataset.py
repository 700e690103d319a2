"""The card of a corpus that `tall prepare` made."""

import os
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from tall_hf import hub_cards
from tall_hf.data.prepare import load_translations, read_prepare_report

from .language import check_language, language_name
from .licenses import UNKNOWN, check_identifier
from .markup import code, directed, escape, link, table
from .parts import check_full_name, origin_of


TEMPLATE = Path(hub_cards.__file__).parent / "dataset_card.md.j2"
_EXAMPLES = 3
# The Hub's bins of a data set's size, by what is below them.
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
_COUNTS = {
    "read": "read",
    "empty": "left out: empty",
    "too_short": "left out: fewer than {min_words} words",
    "too_long": "left out: more than {max_words} words",
    "duplicates": "left out: duplicates",
    "train": "train",
    "validation": "validation",
}


def dataset_card(
    prepared_folder: str | os.PathLike,
    *,
    repo_id: str | None = None,
    language: str | None = None,
    license: str | None = None,
    source: str | None = None,
    translator: str | None = None,
) -> DatasetCard:
    """Write the card of the sentences and translations in a prepared folder (`load_translations`). No network is used.

    Args:
        prepared_folder: what `tall prepare` wrote.
        repo_id: where it will be published, as "org/name".
        language: ISO 639 code of the sentences' language, such as "he".
        license: identifier of the Hub's for the text, which nobody but you can know; "unknown" when not given.
        source: a sentence that says where the text is from.
        translator: the translator as "org/name@revision", where the folder does not record it.

    Raises:
        FileNotFoundError: the folder was not prepared, or not to its end.
        ValueError: a language, a licence or a name that the Hub would refuse.
    """
    report = read_prepare_report(Path(prepared_folder))
    splits = load_translations(prepared_folder)
    if repo_id is not None:
        check_full_name(repo_id)
    if language is not None:
        language = check_language(language)
    if license is not None:
        check_identifier(license)
    if translator is None:
        origin = report["translation"].get("translator") or {}
    else:
        name, _, revision = translator.partition("@")
        origin = {"name_or_path": name, "revision": revision or None}
    made_by = origin_of(origin, "marian")
    rows = sum(split.num_rows for split in splits.values())
    name = repo_id.split("/")[-1] if repo_id else "Truncated sentences and their translations"
    data = DatasetCardData(
        language=language,
        license=license or UNKNOWN,
        pretty_name=name,
        task_categories=["text-generation"],
        size_categories=[next((size for limit, size in _SIZES if rows < limit), "n>1T")],
        tags=["tall", "low-resource-language", "machine-translated"],
        # As `push_to_hub` lays the files out.
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in splits],
            }
        ],
    )
    corpus = report["corpus"]
    counts = [[title.format(**corpus), f"{report['counts'].get(key, 0):,}"] for key, title in _COUNTS.items()]
    first = next(iter(splits.values()))
    examples = [
        [directed(row["truncated"]), directed(row["missing_word"]), directed(row["translation"])]
        for row in first.select(range(min(_EXAMPLES, first.num_rows)))
    ]
    return DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=escape(name),
        repo_id=repo_id,
        rows=f"{rows:,}",
        splits={split: f"{part.num_rows:,}" for split, part in splits.items()},
        language_name=language_name(language) if language else None,
        license=license,
        source=escape(source) if source else None,
        translator=link(made_by.repo_id, made_by.revision) if made_by.repo_id else None,
        revision=made_by.revision,
        is_recorded=bool(origin),
        counts=table(["texts", "count"], counts, [1]),
        settings=table(["setting", "value"], _settings(report)),
        truncation=corpus.get("truncation", "last_word"),
        examples=table(["truncated", "missing_word", "translation"], examples),
        version=escape(report["tall_hf"]),
        fingerprints=table(
            ["fingerprint of", "value"], [[name, code(value)] for name, value in report["fingerprints"].items()]
        ),
    )


def _settings(report) -> list[list[str]]:
    translation = report["translation"]
    settings = {name: value for name, value in report["corpus"].items() if value is not None}
    settings["translated by"] = translation["backend"]
    if translation["backend"] == "ctranslate2":
        settings["computed in"] = translation["compute_type"]
    settings |= translation["generation"]
    return [[escape(name.replace("_", " ")), escape(str(value))] for name, value in settings.items()]
