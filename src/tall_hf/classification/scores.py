"""What predicted labels are worth: accuracy and macro-F1 with intervals, baselines, averages over languages, differences."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tall_hf.measuring.statistics import (
    CONFIDENCE,
    RESAMPLES,
    load_metric,
    mcnemar,
    paired_bootstrap,
    percentile_interval,
    share,
)


def label_scores(answers: Sequence[str], predictions: Sequence[str], seed: int = 0) -> dict:
    """The figures of one model in one language.

    Args:
        answers: the right labels, (questions,).
        predictions: the model's, (questions,).
        seed: of the bootstrap.

    Returns:
        `accuracy` with its `accuracy_interval` (Wilson's), `macro_f1` with its `macro_f1_interval` (bootstrap), all 95%, and `n`.

    Raises:
        ValueError: no questions, or unequal numbers.
    """
    if not answers or len(answers) != len(predictions):
        raise ValueError(f"There are {len(answers):,} answers and {len(predictions):,} predictions; expected as many.")
    right = [answer == prediction for answer, prediction in zip(answers, predictions, strict=True)]
    f1, interval = macro_f1(answers, predictions, seed=seed)
    return {**share(right), "macro_f1": f1, "macro_f1_interval": interval}


def macro_f1(
    answers: Sequence[str],
    predictions: Sequence[str],
    confidence: float = CONFIDENCE,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """The mean over labels of F1 = 2·TP / (2·TP + FP + FN), and its interval by the percentile bootstrap over questions.

    Labels are those that are an answer or a prediction; in a resample, those of them that are one there.

    Args:
        answers, predictions: as for `label_scores`; at least one.
        confidence, n_resamples, seed: of the interval.
    """
    # To draw n questions is to draw how often each pair of answer and prediction occurs, and there are few of those.
    pairs = Counter(zip(answers, predictions, strict=True))
    labels = {label: i for i, label in enumerate(sorted({label for pair in pairs for label in pair}))}
    counts = np.array([*pairs.values()])
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=n_resamples)
    drawn = np.concatenate([counts[None], drawn])  # (1 + resamples, pairs)
    hits, seen = (np.zeros((len(drawn), len(labels))) for _ in range(2))
    for column, (answer, prediction) in zip(drawn.T, pairs, strict=True):
        if answer == prediction:
            hits[:, labels[answer]] += column
        seen[:, labels[answer]] += column
        seen[:, labels[prediction]] += column
    present = seen > 0
    f1 = np.divide(2 * hits, seen, out=np.zeros_like(hits), where=present).sum(axis=1) / present.sum(axis=1)
    return float(f1[0]), percentile_interval(f1[1:], confidence)


def chance(choices: Sequence[Sequence[str]]) -> float:
    """The accuracy of who draws one of each question's labels."""
    return float(np.mean([1 / len(labels) for labels in choices]))


def majority_accuracy(answers: Sequence[str], choices: Sequence[Sequence[str]]) -> float:
    """The accuracy of who knows, of these questions, which label is right most often, and says it each time.

    Questions of different labels to choose from have each their own.
    """
    groups: dict[tuple[str, ...], Counter] = {}
    for answer, labels in zip(answers, choices, strict=True):
        groups.setdefault(tuple(sorted(labels)), Counter())[answer] += 1
    return sum(max(counts.values()) for counts in groups.values()) / len(answers)


def mean_interval(
    groups: Sequence[np.ndarray], parallel: bool, bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0
) -> tuple[float, float]:
    """95% interval, by resampling questions, of the mean over languages of each one's mean.

    Args:
        groups: for each language a value of each question, (questions,).
        parallel: whether question i is the same in every language: it is then drawn in all of them together. If not, each
            language's questions are drawn by themselves.
        bounds: the least and the greatest value that a question could have.
        seed: of the draws.
    """
    same = len({len(group) for group in groups}) == 1
    if (parallel and same) or len(groups) == 1:
        return load_metric().bootstrap_interval(np.mean(groups, axis=0), CONFIDENCE, RESAMPLES, seed, bounds=bounds)
    if all(len(np.unique(group)) == 1 for group in groups):
        # Resampling knows no spread; see `bootstrap_interval`.
        values = np.concatenate(groups)
        return load_metric().bootstrap_interval(values, CONFIDENCE, RESAMPLES, seed, bounds=bounds)
    generator = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for group in groups:
        values, counts = np.unique(np.asarray(group, dtype=np.float64), return_counts=True)
        means += generator.multinomial(len(group), counts / len(group), size=RESAMPLES) @ values / len(group)
    return percentile_interval(means / len(groups))


def difference(right: np.ndarray, reference: np.ndarray, seed: int = 0) -> dict:
    """How a model's accuracy differs from the reference's on the same questions: `difference`, its 95% `interval`, `p_value`.

    Args:
        right, reference: whether each is right, (questions,).
        seed: of the paired bootstrap; the p-value is McNemar's exact one.
    """
    return {
        "difference": float(np.mean(right) - np.mean(reference)),
        "interval": paired_bootstrap(right, reference, seed=seed),
        "p_value": mcnemar(right, reference),
    }
