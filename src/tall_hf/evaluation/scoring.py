"""What the answers are worth: ranks of the missing words, and the metric's figures."""

from collections.abc import Sequence

import numpy as np

from tall_hf.measuring.statistics import CONFIDENCE, RESAMPLES, check_lengths, load_metric

from .approach import Answer, Question


def score(
    answers: Sequence[Answer],
    questions: Sequence[Question],
    protocol: str = "clean",
    confidence: float = CONFIDENCE,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict:
    """The figures of one approach, by the functions of the metric that `evaluate.load` loads.

    Args:
        answers: one a question, in their order.
        questions: at least one.
        protocol: "clean" or "paper"; how words are compared, see `normalize_word` of the metric.
        confidence: of the intervals.
        n_resamples, seed: of the bootstrap.

    Returns:
        `accuracy`, `top5_accuracy`, `mean_reciprocal_rank` and `character_f_score`, all from 0 to 1, each with its
        `..._interval` (low, high); `perplexity` and `bits_per_character`, None unless every answer has a
        log-probability; `n`.

    Raises:
        ImportError: the extra `eval` is not installed.
        ValueError: no questions, or not as many answers; and what the metric refuses.
    """
    check_lengths(answers=answers, questions=questions)
    return load_metric().missing_word_accuracy(
        [answer.words for answer in answers],
        [question.missing_word for question in questions],
        [answer.log_probability for answer in answers],
        protocol=protocol,
        confidence=confidence,
        n_resamples=n_resamples,
        seed=seed,
    )


def ranks(answers: Sequence[Answer], questions: Sequence[Question], protocol: str = "clean") -> np.ndarray:
    """The rank of each missing word among the words of its answer; words that the protocol takes for one count once.

    Returns:
        Integers of shape (questions,): 1 is the best, 0 that the word is not among them.

    Raises:
        ImportError: the extra `eval` is not installed.
        ValueError: no questions, or not as many answers.
    """
    check_lengths(answers=answers, questions=questions)
    words = [answer.words for answer in answers]
    return load_metric().find_ranks(words, [question.missing_word for question in questions], protocol)
