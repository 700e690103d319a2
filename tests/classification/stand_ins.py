"""Small local files with the columns, types and nesting of the datasets that the tasks are made for."""

import csv
import json
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Value


NLI = Features(
    {
        "premise": Value("string"),
        "hypothesis": Value("string"),
        "label": ClassLabel(names=["entailment", "neutral", "contradiction"]),
    }
)
PAIRS = [
    ("דנה גרה בחיפה", "דנה גרה", 0),
    ("יוסי גר בבית האדום", "יוסי עייף", 1),
    ("רות אוכלת תפוח ירוק בבוקר", "רות גרה בבית", 2),
    ("הילדה קוראת ספר על ים גדול", "הילדה קוראת", 0),
]
# Of the topics that the published rows have under these labels.
NEWS = [
    ("මහ බැංකුව බැඳුම්කර නිකුත් කළේය", 0),
    ("ජනාධිපති, පක්ෂයේ රැස්වීමට ගියේය", 1),
    ("නිළිය නව චිත්‍රපටයේ රඟපෑවාය", 2),
    ("ක්‍රිකට් කණ්ඩායම තරගය ජය ගත්තේය", 3),
    ("නව ජංගම දුරකථනයක් හඳුන්වා දුන්නේය", 4),
]
ENGLISH = [
    ("Dana lives in Haifa", "Dana lives", 0),
    ("Yossi lives in the red house", "You are very tired", 1),
    ("Ruth eats a green apple", "Ruth lives in a red house", 2),
    ("The girl reads a book", "The girl reads", 0),
]


def xnli(folder: Path, languages=("en", "he"), splits=("train", "test"), repeat=1) -> str:
    """Parquet, a folder for each language; the template of its files."""
    for language in languages:
        rows = (ENGLISH if language == "en" else PAIRS) * repeat
        columns = dict(zip(("premise", "hypothesis", "label"), map(list, zip(*rows, strict=True)), strict=True))
        (folder / language).mkdir(parents=True, exist_ok=True)
        for split in splits:
            path = folder / language / f"{split}-00000-of-00001.parquet"
            Dataset.from_dict(columns, features=NLI).to_parquet(str(path))
    return str(folder / "{language}" / "{split}-*.parquet")


def indicxnli(folder: Path, language="hi", split="test") -> Path:
    """JSON: one object, whose only value is the list of rows; in the folder "dev" it is called "validation"."""
    path = folder / "forward" / split / f"xnli_{language}.json"
    path.parent.mkdir(parents=True)
    rows = [{"premise": premise, "hypothesis": hypothesis, "label": label} for premise, hypothesis, label in PAIRS]
    path.write_text(
        json.dumps({{"dev": "validation"}.get(split, split): rows}, indent=6, ensure_ascii=False), encoding="utf-8"
    )
    return path


def sinhala_news(folder: Path) -> Path:
    """CSV without a split; one text has a comma, and stands in quotes."""
    path = folder / "sinhala-news-categories.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("comments", "labels"))
        writer.writerows(NEWS)
    return path


def amazon_reviews(folder: Path, language="de") -> Path:
    """Parquet with integers for labels, and nothing but the two columns."""
    path = folder / f"{language}.parquet"
    texts = ["Ein gutes Buch.\n\nIch habe es gelesen.", "NA", "Nie wieder"]
    Dataset.from_dict({"text": texts, "label": [4, 2, 0]}).to_parquet(str(path))
    return path
