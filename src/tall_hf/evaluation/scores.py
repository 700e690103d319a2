"""From answers to scores: each run scored, compared with a reference, and split by group, word frequency, overlap and length."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tall_hf.data.words import normalize, strip_punctuation, words_of
from tall_hf.measuring.statistics import holm, mcnemar, paired_bootstrap, share

from .approach import Question, TrainingText, read_column
from .run import Results, Run
from .scoring import ranks, score
from .task import shares_words


# Bounds of the bins of word frequency: a bin holds what is at least this and below the next.
_FREQUENCIES = (0, 1, 10, 100, 1_000, 10_000)
_LENGTH_BINS = 5
# Words in a row that a sentence shares with the training text if it is taken from there.
OVERLAP = 7


@dataclass(frozen=True)
class Split:
    """Questions divided into parts, in the order of the parts' names: `parts[i]` names the part of question i."""

    names: list[str]
    parts: np.ndarray

    def masks(self) -> dict[str, np.ndarray]:
        """For each part that has questions, which ones they are, (questions,)."""
        masks = {name: self.parts == name for name in self.names}
        return {name: mask for name, mask in masks.items() if mask.any()}


@dataclass(frozen=True)
class Comparison:
    """A run against the reference on the same questions.

    Attributes:
        difference: accuracy of the run minus that of the reference.
        interval: its 95% interval, by the paired bootstrap.
        p_value: of McNemar's test.
        adjusted_p_value: the same after Holm, over all runs that are compared with the reference under this protocol.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    adjusted_p_value: float


@dataclass(frozen=True)
class Scores:
    """What one run is worth.

    Attributes:
        run: the run; if it failed, nothing else is there.
        metrics: as `score` gives them.
        ranks: of the missing words, (questions,), 0 where not found.
        comparison: with the reference; None for the reference itself and where there is none.
        splits: by what is split ("group", "frequency", "overlap", "length"), then by part, `accuracy`, `accuracy_interval` and `n`.
    """

    run: Run
    metrics: dict | None = None
    ranks: np.ndarray | None = None
    comparison: Comparison | None = None
    splits: dict[str, dict[str, dict]] = field(default_factory=dict)

    @property
    def right(self) -> np.ndarray:
        return self.ranks == 1


def compute_scores(
    results: Results,
    protocol: str,
    reference: str = "tall",
    training: TrainingText | None = None,
    split: Callable[[str], list[str]] = str.split,
    seed: int = 0,
    strip_niqqud: bool = False,
) -> list[Scores]:
    """The scores of every run under a protocol, in their order.

    Args:
        results: of `evaluate_approaches`.
        protocol: one of those asked.
        reference: name of the approach that the others are compared with; if it is not there or failed, none are.
        training: the text of the splits by frequency, whose words are counted in it, and by overlap; None for neither.
        split: divides a sentence into words.
        seed: of the bootstrap.
        strip_niqqud: whether Hebrew vowel points are left out of account in the splits by frequency and overlap.
    """
    questions = results.questions[protocol]
    splits = {"group": split_by_group(questions), "length": split_by_length(questions, split)}
    if training is not None:
        splits["frequency"] = split_by_frequency(questions, training, split, strip_niqqud)
        splits["overlap"] = split_by_overlap(questions, training, split, strip_niqqud)
    runs = results.of(protocol)
    found = {run.approach: ranks(run.answers, questions, protocol) for run in runs if run.error is None}
    comparisons = _compare({name: found[name] == 1 for name in found}, reference, seed)
    scores = []
    for run in runs:
        if run.error is not None:
            scores.append(Scores(run))
            continue
        scores.append(
            Scores(
                run,
                score(run.answers, questions, protocol, seed=seed),
                found[run.approach],
                comparisons.get(run.approach),
                {name: _split(found[run.approach] == 1, parts) for name, parts in splits.items() if parts},
            )
        )
    return scores


def running_accuracy(right: np.ndarray) -> np.ndarray:
    """Accuracy on the first 1, 2, ... questions, (questions,): the paper's Figure 4."""
    return np.cumsum(right) / np.arange(1, len(right) + 1)


def split_by_group(questions: Sequence[Question]) -> Split | None:
    """By `Question.group`; None where no question has one."""
    if all(question.group is None for question in questions):
        return None
    groups = ["-" if question.group is None else question.group for question in questions]
    return Split(sorted(set(groups)), np.array(groups))


def split_by_frequency(
    questions: Sequence[Question],
    training: TrainingText,
    split: Callable[[str], list[str]] = str.split,
    strip_niqqud: bool = False,
) -> Split:
    """By how often the missing word stands anywhere in the training sentences, in powers of ten; 0 is never."""
    counts = Counter()
    for sentence in read_column(training.train, "sentence"):
        counts.update(words_of(sentence, split))
    names = [_span(low, high - 1) for low, high in zip(_FREQUENCIES, _FREQUENCIES[1:], strict=False)]
    names.append(f"{_FREQUENCIES[-1]:,} or more")
    frequencies = [counts[strip_punctuation(normalize(question.missing_word, strip_niqqud))] for question in questions]
    bins = np.searchsorted(_FREQUENCIES, frequencies, side="right") - 1
    return Split(names, np.array(names)[bins])


def split_by_overlap(
    questions: Sequence[Question],
    training: TrainingText,
    split: Callable[[str], list[str]] = str.split,
    strip_niqqud: bool = False,
) -> Split | None:
    """By whether `OVERLAP` words in a row of the sentence, its missing word included, stand in the training text; None if none do.

    Of a sentence of fewer words all of them.
    """
    sentences = [normalize(question.sentence, strip_niqqud) for question in questions]
    shared = shares_words(sentences, training, OVERLAP, split)
    if not any(shared):
        return None
    names = ["none", "some"]
    return Split(names, np.array(names)[np.array(shared, dtype=int)])


def split_by_length(questions: Sequence[Question], split: Callable[[str], list[str]] = str.split) -> Split:
    """By words in the sentence, the missing one included, into parts of about as many questions."""
    lengths = np.array([len(split(question.truncated)) + 1 for question in questions])
    # The longest sentence of each part.
    ends = np.unique(np.quantile(lengths, np.arange(1, _LENGTH_BINS + 1) / _LENGTH_BINS, method="inverted_cdf"))
    starts = [lengths.min(), *(ends[:-1] + 1)]
    names = [_span(int(low), int(high)) for low, high in zip(starts, ends, strict=True)]
    return Split(names, np.array(names)[np.searchsorted(ends, lengths)])


def _span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _compare(right: dict[str, np.ndarray], reference: str, seed: int) -> dict[str, Comparison]:
    if reference not in right:
        return {}
    others = [name for name in right if name != reference]
    p_values = [mcnemar(right[name], right[reference]) for name in others]
    return {
        name: Comparison(
            difference=float(right[name].mean() - right[reference].mean()),
            interval=paired_bootstrap(right[name], right[reference], seed=seed),
            p_value=p_value,
            adjusted_p_value=adjusted,
        )
        for name, p_value, adjusted in zip(others, p_values, holm(p_values), strict=True)
    }


def _split(right: np.ndarray, parts: Split) -> dict[str, dict]:
    return {name: share(right[mask]) for name, mask in parts.masks().items()}
