"""Evaluation: the missing-word task, the approaches to it, and what is made of their answers."""

from .approach import Answer, Approach, Question, TrainingText
from .benchmark import evaluate
from .build import APPROACHES
from .report import write_report
from .run import Results, evaluate_approaches
from .scoring import score
from .task import read_questions, training_text


__all__ = [
    "APPROACHES",
    "Answer",
    "Approach",
    "Question",
    "Results",
    "TrainingText",
    "evaluate",
    "evaluate_approaches",
    "read_questions",
    "score",
    "training_text",
    "write_report",
]
