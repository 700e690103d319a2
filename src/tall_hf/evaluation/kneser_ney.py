"""KneserNey: an n-gram model over any symbols; and Spelling, one over letters, for words that no model has seen."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np


# Stands before a sequence, as often as the order asks.
_START = 0


class KneserNey:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3), over an open set of symbols.

    The highest order counts occurrences, lower ones count distinct symbols to the left. Of each count 1, 2, or 3 and more
    a discount of its own is taken, estimated from how many n-grams have which count, and given to the next lower order;
    that of single symbols gives it to `base`. So over all symbols that `base` knows probabilities sum to 1. Symbols are
    predicted up to the end of a sequence, never the end itself; `weighed` makes them those that stand at the end.

    Args:
        sequences: what to learn from.
        order: length of the n-grams.
        base: natural logarithms of probabilities of symbols, (symbols,), whether they were seen or not.

    Raises:
        ValueError: an order below 1, or no symbol to learn from.
    """

    def __init__(
        self, sequences: Iterable[Sequence[str]], order: int, base: Callable[[Sequence[str]], np.ndarray]
    ) -> None:
        if order < 1:
            raise ValueError(f"`order` must be at least 1, got {order}.")
        self.order, self.base = order, base
        ids: dict[str, int] = {}
        padded: list[int] = []
        for sequence in sequences:
            padded += [_START] * (order - 1)
            padded += [ids.setdefault(symbol, len(ids) + 1) for symbol in sequence]
        if not ids:
            raise ValueError("There is no symbol to learn from: all sequences are empty.")
        self.ids, self.symbols = ids, ["", *ids]
        size = self._size = len(self.symbols)
        tokens = np.array(padded, dtype=np.int64)
        positions = np.flatnonzero(tokens)
        # A context is known by the one without its oldest symbol, and that symbol: (shorter context, symbol) -> number.
        self._contexts = [np.zeros(1, dtype=np.int64)]
        context = np.zeros(len(positions), dtype=np.int64)
        for length in range(1, order):
            keys, context = np.unique(context * size + tokens[positions - length], return_inverse=True)
            self._contexts.append(keys)
        # An n-gram is (context, symbol); the discounted probability of each, and what each context leaves to the next order.
        self._grams, self._probabilities, self._backoffs = [], [], []
        keys, counts = np.unique(context * size + tokens[positions], return_counts=True)
        for length in reversed(range(order)):
            discounts = np.array(estimate_discounts(counts))[np.minimum(counts, 3) - 1]
            context = keys // size
            totals = np.bincount(context, weights=counts)
            self._grams.insert(0, keys)
            self._probabilities.insert(0, (counts - discounts) / totals[context])
            self._backoffs.insert(0, np.bincount(context, weights=discounts) / totals)
            shorter = self._contexts[length] // size
            keys, counts = np.unique(shorter[context] * size + keys % size, return_counts=True)
        self._unigrams = np.zeros(size)
        self._unigrams[1:] = self._probabilities[0] + self._backoffs[0][0] * np.exp(base(self.symbols[1:]))
        self._weigh(np.ones(size), 1.0)

    def weighed(self, weights: Mapping[str, float], other: float) -> "KneserNey":
        """This model given an event that follows a symbol with a probability that depends on the symbol alone.

        Such as the end of the sequence: P(symbol | context, end) = P(symbol | context) P(end | symbol) / P(end | context).

        Args:
            weights: probability of the event behind each symbol that was seen, above 0.
            other: the same behind any symbol that was not.
        """
        model = copy.copy(self)
        model._weigh(np.array([0.0, *(weights[symbol] for symbol in self.symbols[1:])]), other)
        return model

    def _weigh(self, weights: np.ndarray, other: float):
        self._weights, self._other = weights, other
        # What the n-grams of each context contribute to the sum over all symbols that the weights are divided by.
        self._weight_sums = [
            np.bincount(
                grams // self._size, probabilities * weights[grams % self._size], minlength=len(self._contexts[length])
            )
            for length, (grams, probabilities) in enumerate(zip(self._grams, self._probabilities, strict=True))
        ]
        seen = np.exp(self.base(self.symbols[1:]))
        self._base_weight = float((seen * weights[1:]).sum() + (1 - seen.sum()) * other)
        self._frequent = np.argsort(-self._unigrams * weights, kind="stable")

    def log_probabilities(self, contexts: Sequence[Sequence[str]], symbols: Sequence[str]) -> np.ndarray:
        """Natural logarithms of the probability of each symbol behind its context, which begins a sequence."""
        targets = np.array([self.ids.get(symbol, -1) for symbol in symbols], dtype=np.int64)
        seen, left = np.zeros(len(symbols)), np.ones(len(symbols))
        weight_sums = np.full(len(symbols), self._base_weight)
        for length, (context, known) in enumerate(self._walk(contexts)):
            grams = self._grams[length]
            places, found = _find(grams, context * self._size + targets, known & (targets >= 0))
            backoffs = np.where(known, self._backoffs[length][context], 1.0)
            seen = np.where(found, self._probabilities[length][places], 0.0) + backoffs * seen
            left *= backoffs
            weight_sums = np.where(known, self._weight_sums[length][context], 0.0) + backoffs * weight_sums
        weights = np.where(targets >= 0, self._weights[targets], self._other)
        with np.errstate(divide="ignore"):
            return np.logaddexp(np.log(seen), np.log(left) + self.base(symbols)) + np.log(weights / weight_sums)

    def most_probable(self, contexts: Sequence[Sequence[str]], top_k: int) -> list[list[str]]:
        """The `top_k` most probable of the symbols that were seen, behind each context; of equals the earlier seen."""
        levels = [list(zip(*level, strict=True)) for level in self._walk(contexts)]
        return [self._most_probable([level[i] for level in levels], top_k) for i in range(len(contexts))]

    def _most_probable(self, levels, top_k):
        # Whatever was seen behind a long context was seen behind its last symbol too; of all others only the most frequent.
        candidates = self._frequent[:top_k]
        ranges = []
        for length, (context, known) in enumerate(levels[1:], start=1):
            if known:
                grams, first = self._grams[length], context * self._size
                start, stop = np.searchsorted(grams, (first, first + self._size))
                ranges.append((grams[start:stop] - first, self._probabilities[length][start:stop]))
        candidates = np.union1d(candidates, ranges[0][0]) if ranges else np.sort(candidates)
        scores = self._unigrams[candidates]
        for length, (symbols, probabilities) in enumerate(ranges, start=1):
            scores = scores * self._backoffs[length][levels[length][0]]
            scores[np.searchsorted(candidates, symbols)] += probabilities
        scores = scores * self._weights[candidates]
        # Equals around the last place must not be decided by how numpy partitions.
        enough = scores >= np.partition(scores, -min(top_k, len(scores)))[-min(top_k, len(scores))]
        candidates, scores = candidates[enough], scores[enough]
        chosen = candidates[np.lexsort((candidates, -scores))][:top_k]
        return [self.symbols[index] for index in chosen if index != _START]

    def _walk(self, contexts):
        """For context lengths 0 to order - 1: number of each context, and whether it was seen (else its number is 0)."""
        number, known = np.zeros(len(contexts), dtype=np.int64), np.ones(len(contexts), dtype=bool)
        yield number, known
        for length in range(1, self.order):
            oldest = [self.ids.get(c[-length], -1) if len(c) >= length else _START for c in contexts]
            oldest = np.array(oldest, dtype=np.int64)
            number, known = _find(self._contexts[length], number * self._size + oldest, known & (oldest >= 0))
            yield number, known


class Spelling:
    """Probability of any word at all by its letters: Kneser-Ney over letters, learned from words that were seen once.

    Words that occur once are the most like those that do not occur. Letters that were never seen share what is left
    evenly among all Unicode characters, so over all words, whatever they are made of, probabilities sum to 1.

    Args:
        counts: how often each word was seen.
        order: length of the n-grams of letters.
    """

    def __init__(self, counts: dict[str, int], order: int = 4) -> None:
        words = [word for word, count in counts.items() if count == 1] or list(counts)
        num_characters = 0x110000 + 1  # with the end of a word, which is the empty symbol
        self._letters = KneserNey(
            ([*word, ""] for word in words), order, lambda symbols: np.full(len(symbols), -np.log(num_characters))
        )
        # A word has a letter.
        self._log_not_empty = np.log1p(-np.exp(self._letters.log_probabilities([""], [""])[0]))

    def log_probabilities(self, words: Sequence[str]) -> np.ndarray:
        """Natural logarithms, (words,)."""
        keep = self._letters.order - 1
        contexts = [word[max(0, i - keep) : i] for word in words for i in range(len(word) + 1)]
        symbols = [symbol for word in words for symbol in [*word, ""]]
        letters = self._letters.log_probabilities(contexts, symbols)
        owners = np.repeat(np.arange(len(words)), [len(word) + 1 for word in words])
        return np.bincount(owners, weights=letters, minlength=len(words)) - self._log_not_empty


def estimate_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """What is taken of counts of 1, 2, and 3 and more (Chen and Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in range(1, 5))
    # Small or odd texts lack some counts, and then the estimate is no discount.
    plain = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    estimates = (plain, 2 - 3 * plain * n3 / max(n2, 1), 3 - 4 * plain * n4 / max(n3, 1))
    return tuple(value if 0 < value < count else plain for count, value in zip((1, 2, 3), estimates, strict=True))


def _find(keys: np.ndarray, wanted: np.ndarray, possible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each wanted key stands among the sorted ones (0 if nowhere), and whether it is there."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = possible & (keys[places] == wanted)
    return np.where(found, places, 0), found
