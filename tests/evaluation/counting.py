"""Approaches that count what they are asked and what they learn, and a short way to ask them."""

from answering import QUESTIONS
from datasets import Dataset

from tall_hf.evaluation.approach import Answer, Approach, TrainingText
from tall_hf.evaluation.run import evaluate_approaches


class Counting(Approach):
    """Answers with its word, counts the questions, and can be told to fail."""

    def __init__(self, name="counting", word="a", fails_at=None, protocols=("clean",), error=None, **settings):
        self.name = name
        self.word = word
        self.fails_at = fails_at
        self.protocols = protocols
        self.error = error or RuntimeError("no more")
        self._settings = {"word": word, **settings}
        self.asked = []
        self.closed = 0

    def settings(self):
        return self._settings

    def answer(self, questions, protocol, top_k=5):
        if self.fails_at is not None and len(self.asked) >= self.fails_at:
            raise self.error
        self.asked += questions
        return [Answer((self.word,)) for _ in questions]

    def close(self):
        self.closed += 1


class Learning(Counting):
    """Learns the training text's first word; counts how often it does and how often it only loads."""

    fits = loads = 0

    def fit(self, training, folder):
        if training is None:
            raise ValueError("there is no text: run `tall prepare`")
        path = folder / "word.txt"
        if path.exists():
            self.loads += 1
        else:
            self.fits += 1
            path.write_text(training.train["missing_word"][0])
        self.word = path.read_text()
        return {"word": self.word}


def text(word, fingerprint="f"):
    return TrainingText(Dataset.from_dict({"missing_word": [word]}), None, fingerprint)


def ask(approach, output, questions=QUESTIONS, **settings):
    approaches = [approach] if isinstance(approach, Approach) else approach
    return evaluate_approaches(approaches, {"clean": questions}, output, **{"batch_size": 8, **settings})
