"""The next words of sentences, by the model of this repository: python examples/next_words.py "the beginning of a sentence"

Run it in a clone of the repository, or name any model of this kind: --model org/name [--revision COMMIT].
"""

import argparse
from pathlib import Path

from transformers import pipeline


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", help="sentences without their last word")
    parser.add_argument("--model", default=str(Path(__file__).parents[1]), help="folder or Hub id")
    parser.add_argument("--revision", help="commit of a Hub id, so that nobody can exchange the code that is run")
    parser.add_argument("--top-k", type=int, default=5, help="how many words")
    options = parser.parse_args()
    # The code of the repository is run: look at its *_tall.py before.
    pipe = pipeline("text-generation", model=options.model, revision=options.revision, trust_remote_code=True)
    for text, words in zip(options.texts, pipe(options.texts, top_k=options.top_k), strict=True):
        print(text)
        for word in words:
            print(f"  {word['score']:6.1%}  {word['word']}")


if __name__ == "__main__":
    main()
