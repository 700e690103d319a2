"""How much of a TALL's error is its translator's: ask it with reference translations in place of the translator's own.

python references.py gated=outputs/he-cpu/trained/gated/model --text held_out.references.jsonl --dataset PREPARED --output FOLDER

The text has columns `text`, `group` and `english`, a translation by people. Beside the TALL as it is stand
`reference`, which reads that translation without its last word, `whole_reference`, which reads all of it and so the
missing word's own translation too: an upper bound on what better translators could give without training anew; and
`other_reference`, which reads all of another sentence's. A TALL that answers alike behind all of them does not listen.
"""

import argparse

from data import other_sentences, read_jsonl
from datasets import Dataset

from tall_hf.data.words import normalize, split_last_word
from tall_hf.evaluation.approaches.tall import TALLWithTranslations
from tall_hf.evaluation.benchmark import evaluate
from tall_hf.evaluation.build import tall_loader
from tall_hf.measuring.device import accelerator_or_cpu, choose_dtype


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="NAME=FOLDER", help="a trained TALL")
    parser.add_argument("--text", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--max-questions", type=int)
    parser.add_argument("--strip-niqqud", action="store_true")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    name, _, folder = options.model.partition("=")
    # Translations are found by what stands before the last word: of two sentences that differ there alone, one is asked.
    rows = {}
    for row in read_jsonl(options.text):
        rows.setdefault(split_last_word(normalize(row["text"], options.strip_niqqud))[0], row)
    whole = {question: row["english"] for question, row in rows.items()}
    truncated = {question: split_last_word(english)[0] or english for question, english in whole.items()}
    other = dict(zip(whole, other_sentences(list(whole.values())), strict=True))
    # As `evaluate` loads the TALL itself.
    load = tall_loader(folder, dtype=choose_dtype("auto"), device=accelerator_or_cpu())
    evaluate(
        {name: folder},
        Dataset.from_list(list(rows.values())),
        options.output,
        dataset=options.dataset,
        approaches=["tall"],
        user_approaches=[
            TALLWithTranslations(load, "reference", truncated),
            TALLWithTranslations(load, "whole_reference", whole),
            TALLWithTranslations(load, "other_reference", other),
        ],
        protocols=["clean"],
        group_column="group",
        max_questions=options.max_questions,
        strip_niqqud=options.strip_niqqud,
        batch_size=options.batch_size,
    )


if __name__ == "__main__":
    main()
