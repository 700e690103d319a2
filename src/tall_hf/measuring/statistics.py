"""Whether models differ by more than chance: shares with their intervals, paired tests, and p-values read together."""

from collections.abc import Sequence

import numpy as np


# Of intervals, unless told otherwise, and how often the bootstrap draws for one.
CONFIDENCE = 0.95
RESAMPLES = 2000


def share(right: Sequence[bool], confidence: float = CONFIDENCE) -> dict:
    """`accuracy`, its `accuracy_interval` (Wilson's) and `n` of some questions.

    Args:
        right: whether each is answered rightly, of shape (questions,), at least one.
        confidence: of the interval.

    Raises:
        ImportError: the extra `eval` is not installed.
    """
    accuracy, n = float(np.mean(right)), len(right)
    return {"accuracy": accuracy, "accuracy_interval": load_metric().wilson_interval(accuracy, n, confidence), "n": n}


def mcnemar(right_a: Sequence[bool], right_b: Sequence[bool]) -> float:
    """McNemar's exact test (1947) of whether two models are right equally often on the same questions.

    Of the questions that one of them alone answers rightly, each is as likely to be the one's as the other's if they are
    equally good; the p-value is that of the two-sided binomial test.

    Args:
        right_a, right_b: whether each model is right, of shape (questions,).

    Returns:
        The p-value: 1.0 where they never differ, 0.0 where it is below the smallest float.

    Raises:
        ValueError: no questions, or unequal lengths.
    """
    check_lengths(right_a=right_a, right_b=right_b)
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(~right_a & right_b))
    n = only_a + only_b
    # Whole numbers, of n bits: nothing overflows or is rounded before the division.
    coefficient, tail = 1, 0
    for k in range(min(only_a, only_b) + 1):
        tail += coefficient
        coefficient = coefficient * (n - k) // (k + 1)
    return min(1.0, 2 * tail / 2**n)


def paired_bootstrap(
    right_a: Sequence[float],
    right_b: Sequence[float],
    confidence: float = CONFIDENCE,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the mean of `right_a` minus that of `right_b`, both on the same questions, by resampling questions.

    Args:
        right_a, right_b: of shape (questions,), from 0 to 1: whether each model is right, or its reciprocal rank.
        confidence: of the interval.
        n_resamples, seed: of the bootstrap.

    Returns:
        (low, high) of the percentile bootstrap. Where the difference is the same on every question, see
        `bootstrap_interval` of the metric.

    Raises:
        ImportError: the extra `eval` is not installed.
        ValueError: no questions, unequal lengths, or values below 0 or above 1.
    """
    check_lengths(right_a=right_a, right_b=right_b)
    right_a, right_b = np.asarray(right_a, dtype=np.float64), np.asarray(right_b, dtype=np.float64)
    for values in (right_a, right_b):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"Values from 0 to 1 are compared, got one of {values.min()} to {values.max()}.")
    bounds = (-1.0, 1.0)
    return load_metric().bootstrap_interval(right_a - right_b, confidence, n_resamples, seed, bounds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment (1979) of p-values that are read together, such as one of each model against the same other.

    Returns:
        The adjusted p-values, in the order given; those below a level are significant at that level as a family.

    Raises:
        ValueError: a value is not between 0 and 1.
    """
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"A p-value lies between 0 and 1, got {wrong[0]}.")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, float(largest))
    return adjusted


def percentile_interval(resampled: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """(low, high) of the percentile bootstrap: between them lie so many of the figures of the resamples, (resamples,)."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def load_metric():
    """The module of the metric that is published on the Hub, whose intervals are used here too; loaded where it is needed.

    Raises:
        ImportError: the extra `eval` is not installed.
    """
    try:
        from tall_hf.hub_cards.metrics.missing_word_accuracy import missing_word_accuracy
    except ModuleNotFoundError as error:
        if error.name not in ("evaluate", "sacrebleu"):
            raise
        raise ImportError(
            f"Scoring needs {error.name}, which is not installed; install it with `pip install 'tall-hf[eval]'`."
        ) from error
    return missing_word_accuracy


def check_lengths(**inputs: Sequence):
    """ValueError unless two inputs, given by name, are of equal lengths, and not empty."""
    (name, values), (other_name, others) = inputs.items()
    if len(values) != len(others):
        raise ValueError(f"There are {len(values):,} {name} and {len(others):,} {other_name}; expected as many.")
    if len(values) == 0:
        raise ValueError(f"There are no questions: {name} and {other_name} are empty.")
