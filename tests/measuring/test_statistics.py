"""The significance of differences and their intervals, checked by hand and by simulation."""

import itertools

import numpy as np
import pytest

from tall_hf.measuring.statistics import holm, mcnemar, paired_bootstrap, percentile_interval, share


def right(only_a, only_b, both, neither):
    """Two models' right answers, by how many questions each alone answers."""
    counts = (only_a, only_b, both, neither)
    return np.repeat([True, False, True, False], counts), np.repeat([False, True, True, False], counts)


def test_a_share_has_wilsons_interval():
    found = share([True] * 4 + [False])
    assert (found["accuracy"], found["n"]) == (0.8, 5)
    assert found["accuracy_interval"] == pytest.approx((0.3755, 0.9638), abs=1e-4)


def test_a_percentile_interval_leaves_as_much_out_on_either_side():
    assert percentile_interval(np.arange(1001)) == pytest.approx((25, 975))
    assert percentile_interval(np.arange(1001), confidence=0.5) == pytest.approx((250, 750))


@pytest.mark.parametrize(
    "only_a, only_b, p",
    [
        (0, 0, 1),
        (1, 0, 1),
        (3, 3, 1),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (1, 8, 2 * (1 + 9) / 2**9),
        (2, 10, 2 * (1 + 12 + 66) / 2**12),
    ],
)
def test_mcnemar_by_hand(only_a, only_b, p):
    assert mcnemar(*right(only_a, only_b, both=4, neither=7)) == p
    assert mcnemar(*right(only_a, only_b, both=0, neither=0) if p < 1 else right(only_a, only_b, 1, 1)) == p


def test_mcnemar_of_fifty_thousand_questions():
    # As the chi-square approximation with continuity correction has it: z = (|24,700 - 25,300| - 1) / sqrt(50,000) = 2.679.
    assert mcnemar(*right(24_700, 25_300, 0, 0)) == pytest.approx(0.00739, abs=1e-5)
    assert mcnemar(*right(25_000, 25_000, 0, 0)) == 1
    assert mcnemar(*right(50_000, 0, 0, 0)) == 0  # 2 ** -49,999 is below the smallest float


def test_mcnemar_rejects_no_more_often_than_it_says():
    rng = np.random.default_rng(0)
    p_values = [mcnemar(*(rng.random((2, 200)) < 0.3)) for _ in range(500)]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.06


def test_paired_bootstrap():
    low, high = paired_bootstrap(*right(60, 20, 40, 80))
    # The normal approximation: 0.2 with a standard error of sqrt((80 - 40**2 / 200) / 200**2) = 0.0424.
    assert (low, high) == pytest.approx((0.2 - 1.96 * 0.0424, 0.2 + 1.96 * 0.0424), abs=0.01)
    assert paired_bootstrap(*reversed(right(60, 20, 40, 80))) == pytest.approx((-high, -low), abs=0.01)
    assert paired_bootstrap(np.array([0.5, 1, 0.2]), np.array([0.5, 0, 0.1])) > (-0.01, 0)


def test_paired_bootstrap_of_models_that_never_differ_has_a_width():
    low, high = paired_bootstrap(*right(0, 0, 20, 30))
    assert -low == high == pytest.approx(1.96**2 / (50 + 1.96**2), abs=1e-4)


@pytest.mark.parametrize("only_a, only_b", [(0.05, 0.02), (0.3, 0.2)])
def test_paired_bootstrap_covers_the_difference_as_often_as_it_says(only_a, only_b):
    rng = np.random.default_rng(0)
    of_kind = [only_a, only_b, 0.25, 0.75 - only_a - only_b]
    covered = 0
    for counts in rng.multinomial(200, of_kind, size=500):
        low, high = paired_bootstrap(*right(*counts), n_resamples=1000)
        covered += low <= only_a - only_b + 1e-12 and high >= only_a - only_b - 1e-12
    assert 0.92 <= covered / 500 <= 0.98


@pytest.mark.parametrize("function", [mcnemar, paired_bootstrap])
def test_two_models_are_compared_on_the_same_questions(function):
    with pytest.raises(ValueError, match="2 right_a and 1 right_b"):
        function([True, False], [True])
    with pytest.raises(ValueError, match="no questions"):
        function([], [])


def test_paired_bootstrap_refuses_what_is_no_share():
    with pytest.raises(ValueError, match="from 0 to 1"):
        paired_bootstrap([1, 2], [0, 1])  # ranks, say


def test_holm_by_hand():
    for p_values in itertools.permutations([0.01, 0.04, 0.03, 0.005]):
        adjusted = dict(zip(p_values, holm(p_values), strict=True))
        # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 no less than the one before it.
        assert adjusted == pytest.approx({0.005: 0.02, 0.01: 0.03, 0.03: 0.06, 0.04: 0.06})
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []
    with pytest.raises(ValueError, match="got 1.2"):
        holm([0.5, 1.2])
    with pytest.raises(ValueError, match="got nan"):
        holm([float("nan")])
