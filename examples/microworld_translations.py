"""How much hangs on the translation: ask a trained TALL of the little world with better and with worse ones than its own.

python examples/microworld_translations.py outputs/demo --output outputs/translations

The questions are about held-out people. Beside the TALL with its translator stand `reference`, which reads the world's own English
of the sentence without its last word; `shuffled`, which reads its words in any order; and `of_another`, which reads that of the
same relation of another person. The adapters are as they were trained, on their translator's.
"""

import argparse
import random

from datasets import Dataset

from tall_hf.data.words import normalize, split_last_word
from tall_hf.evaluation import evaluate
from tall_hf.evaluation.approaches.tall import TALLWithTranslations
from tall_hf.evaluation.build import tall_loader
from tall_hf.microworld import LANGUAGES, World


def given_translations(records, seed):
    """The three kinds of translations by the sentence without its last word, for records about held-out people."""
    rng = random.Random(seed)
    sentences = [split_last_word(normalize(record.text))[0] for record in records]
    english = [record.english_truncated for record in records]
    shuffled = [" ".join(rng.sample(text.split(), len(text.split()))) for text in english]
    of_another = list(english)
    for relation in {record.relation for record in records}:
        places = [place for place, record in enumerate(records) if record.relation == relation]
        for place, other in zip(places, [*places[1:], places[0]], strict=True):
            of_another[place] = english[other]
    kinds = {"reference": english, "shuffled": shuffled, "of_another": of_another}
    return {name: dict(zip(sentences, texts, strict=True)) for name, texts in kinds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a TALL trained on the little world")
    parser.add_argument("--output", required=True, help="folder for answers and the report")
    parser.add_argument("--seed", type=int, default=0, help="of the split, as for the training text, and of the draws")
    parser.add_argument("--language", choices=list(LANGUAGES), default="he", help="of the sentences (default: he)")
    parser.add_argument("--max-questions", type=int, help="draw so many")
    options = parser.parse_args()
    _, records = World(language=options.language).records(options.seed)
    rows = Dataset.from_list([{"text": record.text, "group": record.kind} for record in records])
    load = tall_loader(options.model)
    evaluate(
        options.model,
        rows,
        options.output,
        approaches=["tall"],
        user_approaches=[
            TALLWithTranslations(load, name, texts)
            for name, texts in given_translations(records, options.seed).items()
        ],
        protocols=["clean"],
        column="text",
        group_column="group",
        max_questions=options.max_questions,
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
