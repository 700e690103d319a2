"""A process that translates a corpus and, if told to, kills itself on the way: `translate_child.py MODEL FOLDER [KILL]`.

FOLDER holds `corpus.arrow`. Each batch that is translated adds a line to `calls-RANK.jsonl`. KILL is "batch 5" (before the
fifth batch) or "rename 2" (when the second file is written, but not in its place).
"""

import json
import os
import signal
import sys
from pathlib import Path

from tall_hf import TALLForCausalLM, TALLProcessor
from tall_hf.data import translate_corpus
from tall_hf.data.corpus import load_corpus


SETTINGS = {"batch_size": 4, "shard_size": 16, "num_beams": 2}


def main(model_folder: str, folder: str, kill: str = "never 0"):
    model, folder = TALLForCausalLM.from_pretrained(model_folder), Path(folder)
    where, number = kill.split()
    left = {where: int(number)}

    def passing(place):
        left[place] = left.get(place, 0) - 1
        if left[place] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    translate, replace = model.translate, os.replace

    def logged(texts, *args, **kwargs):
        passing("batch")
        translations = translate(texts, *args, **kwargs)
        with open(folder / f"calls-{os.environ.get('RANK', 0)}.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(texts) + "\n")
        return translations

    def rename(*args):
        passing("rename")
        replace(*args)

    model.translate, os.replace = logged, rename
    corpus = load_corpus(folder / "corpus.arrow")
    translate_corpus(model, TALLProcessor.from_pretrained(model_folder), corpus, folder / "shards", **SETTINGS)


if __name__ == "__main__":
    main(*sys.argv[1:])
