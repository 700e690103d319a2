"""Results written by hand: ten questions, three approaches, one of which failed."""

from datasets import Dataset

from tall_hf.evaluation.approach import Answer, Question, TrainingText
from tall_hf.evaluation.run import Results, Run
from tall_hf.measuring.cost import Cost


QUESTIONS = [
    Question(" ".join(["מילה"] * (1 + number // 2)), f"סוף{number}", group="even" if number % 2 == 0 else "odd")
    for number in range(10)
]


def answers(right, second=(), log_probability=None):
    """Answers that are right first for the questions numbered `right`, and second for `second`."""
    made = []
    for number, question in enumerate(QUESTIONS):
        words = (question.missing_word if number in right else "אחר",)
        words += (question.missing_word,) if number in second else ()
        made.append(Answer(words, log_probability, "an English sentence, with a comma"))
    return made


def results(protocols=("clean",)):
    runs = []
    for protocol in protocols:
        runs += [
            Run(
                "tall",
                protocol,
                answers(range(8), second=(8,), log_probability=-0.5),
                settings={"beams": 16},
                answering=Cost(12.5, 2**30, None),
            ),
            Run(
                "ngram",
                protocol,
                answers((0, 9)),
                learned={"order": 3},
                fitting=Cost(3.0, 3 * 2**30, None),
                answering=Cost(0.5, 2**29, None),
            ),
            Run("broken", protocol, error="RuntimeError: out | of\nluck"),
        ]
    return Results(dict.fromkeys(protocols, QUESTIONS), runs, seed=3, batch_size=4, top_k=5)


def training():
    """Sentences in which סוף0 stands once, סוף1 twelve times, and no other missing word."""
    sentences = ["יש כאן סוף0 פעם"] + ["והנה גם סוף1"] * 12
    return TrainingText(Dataset.from_dict({"sentence": sentences}), None, "f")
