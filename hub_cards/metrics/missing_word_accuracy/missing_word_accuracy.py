"""The metric of the missing-word task as a module of the `evaluate` library: one file that needs nothing of tall_hf."""

import functools
import itertools
import math
import re
import unicodedata
from collections.abc import Sequence
from statistics import NormalDist

import datasets
import evaluate
import numpy as np
import sacrebleu


_DESCRIPTION = """\
How often a model finds the missing last word of a sentence, with intervals: accuracy, top-5 accuracy, mean reciprocal
rank, a character F-score for near misses and, where the model gives probabilities, the missing word's perplexity and bits
per character. Words are compared whole, after Unicode normalisation and without the punctuation around them.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of lists of str): for each question the proposed words, the best first; an empty list where there is
        no proposal. Or a list of str: one word a question.
    references (list of str): the missing word of each question.
    log_probabilities (list of float, optional): the natural logarithm of the probability that the model gives to each
        missing word as the next whole word; None or NaN where it gives none, -inf for a probability of zero.
    protocol (str): what two words must have in common to be the same.
        "clean" (default): the same letters in Unicode NFC, without bidirectional and other invisible marks, control
        characters, pictures, and punctuation around the word. Case, vowel points and punctuation inside the word count.
        "paper": the same characters, every '.' and ',' aside, as in TALL's own evaluation; a missing word of nothing else
        is a question that no proposal answers.
    share_interval (str): how the intervals of the two accuracies are made: "wilson" (default), Wilson's score interval,
        which holds its level for rare hits and for none; or "bootstrap", the percentile bootstrap of the other figures.
    confidence (float): of the intervals, 0.95 by default.
    n_resamples (int): resamples of the bootstrap, 2000 by default.
    seed (int): of the bootstrap, 0 by default.
Returns:
    accuracy (float): share of the questions whose first proposal is the missing word, from 0 to 1.
    accuracy_interval (tuple of float): see `share_interval`.
    top5_accuracy, top5_accuracy_interval: likewise for the first five proposals.
    mean_reciprocal_rank (float): mean of 1 / rank of the missing word, 0 where it is not among the proposals.
    mean_reciprocal_rank_interval (tuple of float): percentile bootstrap over questions.
    character_f_score (float): mean over questions of chrF2 (Popović, 2015) of the first proposal, from 0 to 1.
    character_f_score_interval (tuple of float): percentile bootstrap over questions.
    perplexity (float or None): exp(-mean log p); None unless every question has a log-probability.
    bits_per_character (float or None): -sum of log2 p / characters of the missing words; None likewise.
    n (int): how many questions there are.
Examples:
    >>> import evaluate
    >>> metric = evaluate.load("hub_cards/metrics/missing_word_accuracy")  # or the Space: "name/missing_word_accuracy"
    >>> results = metric.compute(
    ...     predictions=[["ספר", "עיתון"], ["הבית", "בית"], []],
    ...     references=["ספר.", "בית", "ילד"],
    ...     log_probabilities=[-0.5, -1.5, -4.0],
    ... )
    >>> round(results["accuracy"], 3), round(results["top5_accuracy"], 3), results["mean_reciprocal_rank"]
    (0.333, 0.667, 0.5)
    >>> [round(bound, 3) for bound in results["accuracy_interval"]]
    [0.061, 0.792]
    >>> round(results["perplexity"], 3), round(results["bits_per_character"], 3), results["n"]
    (7.389, 0.962, 3)
"""

_CITATION = """\
@article{tall2025,
    title = {{TALL}: A Trainable Architecture for Enhancing {LLM} Performance in Low-Resource Languages},
    journal = {arXiv preprint arXiv:2506.05057},
    year = {2025}
}
"""

PROTOCOLS = ("clean", "paper")
SHARE_INTERVALS = ("wilson", "bootstrap")

# These sets and `normalize_word` repeat tall_hf.data.words, which divides sentences into questions, because this file
# travels alone. A property test in tests/hub_cards holds the two together.
_INVISIBLE_PATTERN = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u00ad\u2060\ufeff\ufe0e\ufe0f]")
_MOST_MARKS = 30
# Neither letters nor white space; fewer in a row hold no more marks, of which a letter brings three at most, and a sign two.
_MANY_SIGNS = re.compile(r"[^\w\s]{14,}")
_JOINERS = "\u200c\u200d"
_MARK_UP = frozenset("|~^*#_•·‣\\<>")

# How many numbers the bootstrap holds at a time.
_BOOTSTRAP_CHUNK = 2**22


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MissingWordAccuracy(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("string")),
                    "references": datasets.Value("string"),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2506.05057", "https://aclanthology.org/W15-3049"],
        )

    def compute(self, *, predictions=None, references=None, **kwargs):
        """Compute the metric of these questions, or of those added before."""
        if predictions is not None:
            # The library looks at the first question only, and would take a later plain word apart into letters.
            predictions = [_proposals(words, index) for index, words in enumerate(predictions)]
            if references is not None:
                _check_lengths(predictions=predictions, references=references)
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(self, predictions, references, **options):
        return missing_word_accuracy(predictions, references, **options)


def missing_word_accuracy(
    predictions: Sequence[Sequence[str] | str],
    references: Sequence[str],
    log_probabilities: Sequence[float | None] | None = None,
    protocol: str = "clean",
    share_interval: str = "wilson",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict:
    """What `MissingWordAccuracy.compute` returns, without the library's cache; see there.

    Raises:
        ValueError: no questions, unequal lengths, a reference that is no word, an unknown protocol or kind of interval, a
            log-probability above 0, a confidence that is not between 0 and 1, or no resamples.
        TypeError: a prediction is neither a word nor a list of words, or a reference is not a word.
    """
    if share_interval not in SHARE_INTERVALS:
        raise ValueError(
            f"`share_interval` must be one of {', '.join(map(repr, SHARE_INTERVALS))}, got {share_interval!r}."
        )
    ranks = find_ranks(predictions, references, protocol)
    n = len(ranks)
    results = {}
    for name, last_rank in (("accuracy", 1), ("top5_accuracy", 5)):
        hits = (ranks > 0) & (ranks <= last_rank)
        results[name] = float(hits.mean())
        if share_interval == "wilson":
            results[f"{name}_interval"] = wilson_interval(hits.mean(), n, confidence)
        else:
            results[f"{name}_interval"] = bootstrap_interval(hits.astype(float), confidence, n_resamples, seed)
    reciprocal_ranks = np.divide(1.0, ranks, out=np.zeros(n), where=ranks > 0)
    f_scores = character_f_scores(predictions, references, protocol)
    for name, values in (("mean_reciprocal_rank", reciprocal_ranks), ("character_f_score", f_scores)):
        results[name] = float(values.mean())
        results[f"{name}_interval"] = bootstrap_interval(values, confidence, n_resamples, seed)
    results |= {"perplexity": None, "bits_per_character": None, "n": n}
    if log_probabilities is not None:
        log_probabilities = _log_probabilities(log_probabilities, references)
        if not np.isnan(log_probabilities).any():
            characters = sum(len(normalize_word(word, protocol)) for word in references)
            with np.errstate(over="ignore", divide="ignore"):
                results["perplexity"] = float(np.exp(-log_probabilities.mean()))
                results["bits_per_character"] = float(-log_probabilities.sum() / math.log(2) / np.float64(characters))
    return results


@functools.lru_cache(maxsize=2**18)  # the same words come again and again, as answers of many approaches
def normalize_word(word: str, protocol: str = "clean") -> str:
    """The word as it is compared; see `protocol` of the metric. Empty where nothing of a word is left."""
    if protocol == "paper":
        return word.replace(".", "").replace(",", "").strip()
    if protocol != "clean":
        raise ValueError(f"`protocol` must be one of {', '.join(map(repr, PROTOCOLS))}, got {protocol!r}.")
    # The zero-width space is where Khmer, Lao or Thai text shows that a word ends.
    word = _INVISIBLE_PATTERN.sub("", word.replace("\u200b", " "))
    word = "".join(" " if _is_stray(char) else char for char in word)
    tokens = (token.strip(_JOINERS) for token in unicodedata.normalize("NFC", _cut_marks(word)).split())
    word = " ".join(token for token in tokens if not _MARK_UP.issuperset(token))
    start, end = 0, len(word)
    while start < end and _is_punctuation_or_space(word[start]):
        start += 1
    while end > start and _is_punctuation_or_space(word[end - 1]):
        end -= 1
    return word[start:end]


def find_ranks(
    predictions: Sequence[Sequence[str] | str], references: Sequence[str], protocol: str = "clean"
) -> np.ndarray:
    """The rank of each missing word among its proposals.

    Proposals that are the same word under `protocol` count once, at the place of the first.

    Args:
        predictions, references, protocol: as for the metric.

    Returns:
        Integers of shape (questions,): 1 is the best, 0 that the word is not among the proposals.

    Raises:
        ValueError, TypeError: as `missing_word_accuracy`.
    """
    _check_lengths(predictions=predictions, references=references)
    ranks = np.zeros(len(references), dtype=np.int64)
    for index, (words, reference) in enumerate(zip(predictions, references, strict=True)):
        if not isinstance(reference, str):
            raise TypeError(f"references[{index}] is {reference!r}; expected the missing word as a string.")
        missing_word = normalize_word(reference, protocol)
        if not reference.strip() or (protocol == "clean" and not missing_word):
            raise ValueError(f"references[{index}] is {reference!r}, which is no word; leave the question out.")
        proposals = dict.fromkeys(normalize_word(word, protocol) for word in _proposals(words, index))
        for rank, word in enumerate(proposals, start=1):
            if word and word == missing_word:
                ranks[index] = rank
    return ranks


def character_f_scores(
    predictions: Sequence[Sequence[str] | str], references: Sequence[str], protocol: str = "clean"
) -> np.ndarray:
    """chrF2 of each first proposal against its missing word, by sacrebleu with its defaults.

    Returns:
        Numbers of shape (questions,) from 0 to 1; 0 where nothing is proposed.
    """
    chrf = sacrebleu.CHRF()
    scores = {}
    pairs = []
    for index, (words, reference) in enumerate(zip(predictions, references, strict=True)):
        first = next(iter(_proposals(words, index)), "")
        pair = normalize_word(first, protocol), normalize_word(reference, protocol)
        if pair not in scores:
            scores[pair] = chrf.sentence_score(pair[0], [pair[1]]).score / 100
        pairs.append(pair)
    return np.array([scores[pair] for pair in pairs])


def wilson_interval(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of `n` questions (Wilson, 1927).

    It keeps its width where the share is 0 or 1, and its coverage where hits are rare; the bootstrap does neither.
    """
    z = _normal_quantile(confidence)
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(center - half_width)), min(1.0, float(center + half_width))


def bootstrap_interval(
    values: np.ndarray,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Percentile-bootstrap interval of the mean over questions.

    Where all questions have the same value, resampling knows no spread. Then the share of questions in the population
    that have another value is at most Wilson's upper limit for none of n, z² / (n + z²), and the interval is as far as
    such a share can move the mean within `bounds`: an interval that is too wide rather than too narrow.

    Args:
        values: of shape (questions,).
        confidence: between 0 and 1.
        n_resamples: how often as many questions are drawn with replacement.
        seed: of the draws.
        bounds: the least and the greatest value that a question could have.
    """
    z = _normal_quantile(confidence)
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be at least 1, got {n_resamples}.")
    n = len(values)
    # To draw n questions is to draw how often each distinct value occurs, and there are few of those.
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    if len(distinct) == 1:
        value, others = float(distinct[0]), z**2 / (n + z**2)
        return value - others * (value - bounds[0]), value + others * (bounds[1] - value)
    generator = np.random.default_rng(seed)
    rows = max(1, _BOOTSTRAP_CHUNK // len(distinct))
    means = [
        generator.multinomial(n, counts / n, size=min(rows, n_resamples - start)) @ distinct / n
        for start in range(0, n_resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _normal_quantile(confidence):
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}.")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _check_lengths(**inputs):
    lengths = {name: len(values) for name, values in inputs.items()}
    if len(set(lengths.values())) > 1:
        listed = " and ".join(f"{length:,} {name}" for name, length in lengths.items())
        raise ValueError(f"There are {listed}; expected one of each for every question.")
    if 0 in lengths.values():
        raise ValueError(f"There are no questions: {' and '.join(lengths)} are empty.")


def _proposals(words, index):
    if isinstance(words, str):
        return [words]
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"predictions[{index}] is {words!r}; expected a list of words, the best first, or one word.")
    return words


def _log_probabilities(log_probabilities, references):
    _check_lengths(log_probabilities=log_probabilities, references=references)
    values = np.array([math.nan if value is None else value for value in log_probabilities], dtype=np.float64)
    # A sum of rounded logarithms may be a hair above 0.
    if (above := np.flatnonzero(values > 1e-3)).size:
        raise ValueError(
            f"log_probabilities[{above[0]}] is {values[above[0]]}; the natural logarithm of a probability is at most 0."
        )
    return values


def _cut_marks(text):
    """The text with at most 30 combining marks on a letter, as in Unicode's Stream-Safe Text Format (UAX #15).

    NFC takes time with the square of their number. They are counted decomposed, where NFC changes no number of them.
    """
    if not _MANY_SIGNS.search(text):
        return text
    kept, marks = [], 0
    for char in text:
        decomposed = unicodedata.normalize("NFD", char)
        own = len(list(itertools.takewhile(unicodedata.combining, reversed(decomposed))))
        marks = own + (marks if own == len(decomposed) else 0)
        if marks <= _MOST_MARKS:
            kept.append(char)
    return "".join(kept)


def _is_stray(char):
    category = unicodedata.category(char)
    return (category in ("Cc", "Cs", "Co", "So") and char != "°") or "\U0001f3fb" <= char <= "\U0001f3ff"


def _is_punctuation_or_space(char):
    category = unicodedata.category(char)
    return category[0] == "P" or category == "Sk" or char == " "
