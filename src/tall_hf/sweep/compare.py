"""Rows of a sweep compared: accuracy over seeds and questions, against the control row, at equal steps and at equal time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import numpy as np

from tall_hf.measuring.statistics import (
    CONFIDENCE,
    RESAMPLES,
    holm,
    load_metric,
    mcnemar,
    percentile_interval,
    share,
)

from .outcomes import Outcome


class EqualTime(NamedTuple):
    """When rows are compared at equal time.

    Attributes:
        seconds: after which all seeds of the fastest row had ended.
        of_processor: whether they are the processor's, which other work on the machine lengthens far less than the clock's;
            they are if every training that is compared ran on one thread without an accelerator.
    """

    seconds: float
    of_processor: bool


@dataclass
class Comparison:
    """A row beside the control row, over the seeds that both have been asked with.

    Attributes:
        difference: accuracy of the row minus that of the control.
        interval: its 95% interval, over seeds and questions.
        seeds: how many both have.
        p_value: of McNemar's test over all their answers, pair by pair.
        adjusted_p_value: the same after Holm, over all rows.
    """

    difference: float
    interval: tuple[float, float]
    seeds: int
    p_value: float
    adjusted_p_value: float | None = None


@dataclass
class Summary:
    """What a row came to.

    Attributes:
        name: of the row.
        outcomes: by seed, of the seeds that are trained.
        accuracy, interval, questions: over all seeds that have been asked, with a 95% interval over seeds and questions.
        comparison: with the control row; None for that row itself, and where nothing can be compared.
        is_compared: whether the row is one of those that are compared; one without an evaluation serves others.
        at_equal_time: validation accuracy, over seeds, when the fastest row had ended; None if nothing was evaluated before.
    """

    name: str
    outcomes: dict[int | None, Outcome]
    is_compared: bool = True
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    questions: int = 0
    comparison: Comparison | None = None
    at_equal_time: float | None = None
    asked: dict[int | None, Outcome] = field(default_factory=dict)

    def mean(self, of) -> float | None:
        """The mean over seeds of `of(outcome)`; None where one of them is None, or there are none."""
        values = [of(outcome) for outcome in self.outcomes.values()]
        return None if not values or None in values else fmean(values)

    def most(self, of) -> int | None:
        """The greatest over seeds of `of(outcome)`, where it is known."""
        return max((value for outcome in self.outcomes.values() if (value := of(outcome)) is not None), default=None)

    def nearly_there(self) -> tuple[float, float] | None:
        """Mean steps and samples over seeds until 90% of the final validation accuracy; None where a seed has none."""
        points = [outcome.nearly_there() for outcome in self.outcomes.values()]
        if not points or None in points:
            return None
        return fmean(point.steps for point in points), fmean(point.samples for point in points)

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest accuracy of a seed; None where none has been asked."""
        found = [fmean(outcome.right.values()) for outcome in self.asked.values()]
        return (min(found), max(found)) if found else None

    @property
    def memory(self) -> int | None:
        """Peak memory in bytes: the accelerator's where it was used, else the process's."""
        on_accelerator = self.most(lambda outcome: outcome.peak_accelerator_memory)
        return on_accelerator or self.most(lambda outcome: outcome.peak_memory)


def summarize(
    outcomes: dict[str, dict[int | None, Outcome]], control: str, served: Sequence[str] = ()
) -> tuple[list[Summary], EqualTime | None]:
    """Every row's figures, and when rows are compared at equal time; None where there is nothing to compare.

    Args:
        outcomes: by row, then by seed, of what is trained.
        control: name of the row that the others are compared with.
        served: rows that are there for others to start from, and are not compared.

    Raises:
        ImportError: the extra `eval` is not installed.
    """
    rows = [Summary(name, found, name not in served) for name, found in outcomes.items()]
    for row in rows:
        row.asked = {seed: outcome for seed, outcome in row.outcomes.items() if outcome.right is not None}
        if row.asked:
            right = _matrix(list(row.asked.values()))
            row.accuracy, row.questions = float(right.mean()), right.shape[1]
            row.interval = accuracy_interval(right)
    first = next((row for row in rows if row.name == control), None)
    if first is not None:
        for row in rows:
            if row is not first and row.is_compared:
                row.comparison = _compare(row, first)
    compared = [row for row in rows if row.comparison is not None]
    for row, adjusted in zip(compared, holm([row.comparison.p_value for row in compared]), strict=True):
        row.comparison.adjusted_p_value = adjusted
    equal_time = _equal_time([row for row in rows if row.is_compared and row.outcomes])
    if equal_time is not None:
        for row in rows:
            if row.is_compared:
                row.at_equal_time = row.mean(lambda outcome: outcome.accuracy_after(*equal_time))
    return rows, equal_time


def accuracy_interval(right: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean of answers (seeds, questions): Wilson's for one seed, else over seeds and questions."""
    if len(right) == 1:
        low, high = share(right[0])["accuracy_interval"]
        return float(low), float(high)
    return crossed_bootstrap(right.astype(np.float64), (0.0, 1.0))


def crossed_bootstrap(
    values: np.ndarray, bounds: tuple[float, float], n_resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95% interval of the mean of values that stand in rows and columns, both of which would be others another time.

    Seeds and questions are each drawn with replacement, and their cells taken together (Owen, "The pigeonhole bootstrap",
    2007). Of few seeds not much spread can be drawn: with three the interval is rather too narrow.

    Args:
        values: of shape (seeds, questions).
        bounds: the least and the greatest value possible; they decide where all values are the same, see
            `bootstrap_interval` of the metric.
        n_resamples, seed: of the bootstrap.
    """
    if len(np.unique(values)) == 1 or len(values) == 1:
        return load_metric().bootstrap_interval(values.mean(axis=0), CONFIDENCE, n_resamples, seed, bounds)
    seeds, questions = values.shape
    # To draw questions is to draw how often each distinct column occurs, and there are few of those.
    columns, counts = np.unique(values, axis=1, return_counts=True)
    generator = np.random.default_rng(seed)
    seed_shares = generator.multinomial(seeds, [1 / seeds] * seeds, size=n_resamples) / seeds
    column_shares = generator.multinomial(questions, counts / questions, size=n_resamples) / questions
    means = ((seed_shares @ columns) * column_shares).sum(axis=1)
    return percentile_interval(means)


def _compare(row: Summary, control: Summary) -> Comparison | None:
    seeds = [seed for seed in row.asked if seed in control.asked]
    if not seeds:
        return None
    both = _matrix([of.asked[seed] for of in (row, control) for seed in seeds])
    if not both.size:
        return None
    own, others = both[: len(seeds)].astype(np.float64), both[len(seeds) :].astype(np.float64)
    return Comparison(
        difference=float((own - others).mean()),
        interval=crossed_bootstrap(own - others, (-1.0, 1.0)),
        seeds=len(seeds),
        p_value=mcnemar(own.ravel(), others.ravel()),
    )


def _matrix(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Which of the questions that all were asked are answered rightly, (outcomes, questions)."""
    questions = [one for one in outcomes[0].right if all(one in outcome.right for outcome in outcomes)]
    return np.array([[outcome.right[one] for one in questions] for outcome in outcomes], dtype=bool)


def _equal_time(rows: Sequence[Summary]) -> EqualTime | None:
    if not rows:
        return None
    outcomes = [outcome for row in rows for outcome in row.outcomes.values()]
    of_processor = all(one.on_one_thread and one.processor_seconds is not None for one in outcomes)

    def took(outcome):
        return outcome.processor_seconds if of_processor else outcome.seconds

    fastest = min(rows, key=lambda row: row.mean(took))
    return EqualTime(max(map(took, fastest.outcomes.values())), of_processor)
