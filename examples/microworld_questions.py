"""Write the little world's questions with labels to a folder, and the task that `tall fusion` reads them by.

python examples/microworld_questions.py FOLDER   # en-train.jsonl, {en,he,tr}-{validation,test}.jsonl and microworld.yaml

The label is the English word that ends a sentence, to be chosen among all words of its kind; only the language model knows
who has which. Trained on are the people of the train split, in English, but for some that settings are chosen by
(validation); asked are the others (test), in every language. `--village` asks about the world of few names that
`python -m tall_hf.microworld.build --multilingual ... --village` builds for, whose language model wants a colon before the answer.
"""

import argparse
import json
import random
from pathlib import Path

import yaml

from tall_hf.microworld import LANGUAGES, VILLAGE, World
from tall_hf.microworld.training import ANSWER
from tall_hf.microworld.vocabulary import OPENERS


VALIDATION_PEOPLE = 25
VALIDATION_VILLAGERS = 9

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--village", action="store_true", help="about the world of few names")
    arguments = parser.parse_args()
    few = VILLAGE if arguments.village else {}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    people, _ = World(**few).split(arguments.seed)
    number = VALIDATION_VILLAGERS if arguments.village else VALIDATION_PEOPLE
    kept_back = set(random.Random(f"validation {arguments.seed}").sample(people, number))
    for language in ("en", *LANGUAGES):
        world = World(language=language if language in LANGUAGES else "he", **few)
        known, held_out = world.questions(arguments.seed, in_english=language == "en")
        # Each fact once, the openers taking turns, as in the test.
        openers = len(OPENERS)
        once = [known[place + place // openers % openers] for place in range(0, len(known), openers)]
        validation = [one for one in once if one.entity in kept_back]
        splits = {"validation": validation, "test": held_out}
        if language == "en":
            splits["train"] = [one for one in known if one.entity not in kept_back]
        for split, questions in splits.items():
            with open(arguments.folder / f"{language}-{split}.jsonl", "w", encoding="utf-8") as file:
                for one in questions:
                    # The language model has read these words inside of sentences: with the space before them.
                    choices = [f" {label}" for label in one.labels]
                    row = {"text": one.text, "label": f" {one.label}", "choices": choices, "relation": one.relation}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    task = {
        "name": "microworld",
        "source": "{text}",
        "prompt": ANSWER if arguments.village else "",
        "label_column": "label",
        "choices_column": "choices",
        "languages": ["en", *LANGUAGES],
        "parallel": True,
        "data_files": "{language}-{split}.jsonl",
    }
    (arguments.folder / "microworld.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
