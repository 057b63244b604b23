"""Correlations with a downstream score, their intervals, and the sentence about them."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from sweeps.correlation import Correlation, Reading, correlations, kendall_rows, spearman_rows
from sweeps.trust import Trust, judge

SCORES = [0.31, 0.42, 0.28, 0.55, 0.61, 0.47, 0.39, 0.70]


def reading(values, name="MIR", fraction=1.0, lower=True):
    return Reading(name=name, fraction=fraction, lower_is_better=lower, values=tuple(values))


def one(values, scores=SCORES, **how) -> Correlation:
    return correlations([reading(values, **how)], scores, resamples=400)[0]


values = st.lists(st.integers(0, 6), min_size=4, max_size=12)


@settings(deadline=None, max_examples=60)
@given(values, st.randoms(use_true_random=False))
def test_both_coefficients_are_scipys_ties_included(x, rng):
    y = [rng.randint(0, 4) for _ in x]
    if len(set(x)) < 2 or len(set(y)) < 2:
        return
    rows_x, rows_y = np.array([x, x[::-1]], float), np.array([y, y], float)
    assert spearman_rows(rows_x, rows_y)[0] == pytest.approx(spearmanr(x, y).statistic)
    assert kendall_rows(rows_x, rows_y)[0] == pytest.approx(kendalltau(x, y).statistic)
    assert kendall_rows(rows_x, rows_y)[1] == pytest.approx(kendalltau(x[::-1], y).statistic)


def test_a_reading_that_falls_as_the_score_rises_is_perfect_where_lower_is_better():
    falling = [1 - s for s in SCORES]
    found = one(falling)
    assert (found.spearman.value, found.kendall.value) == pytest.approx((1, 1))
    assert found.spearman.low == pytest.approx(1) and found.spearman.high == pytest.approx(1)
    assert one(falling, lower=False).spearman.value == pytest.approx(-1)


def test_only_ranks_matter_and_the_numbers_are_the_same_again():
    noisy = [0.9, 0.5, 1.2, 0.6, 0.3, 0.8, 0.4, 0.2]
    assert one(noisy) == one([math.exp(v) for v in noisy])
    assert one(noisy).spearman.low < one(noisy).spearman.value < one(noisy).spearman.high


def test_the_p_value_is_near_that_of_all_orders():
    x, y = [3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    rho = spearmanr(x, y).statistic
    exact = np.mean([abs(spearmanr(order, y).statistic) >= abs(rho) - 1e-9
                     for order in permutations(x)])  # fmt: skip
    found = correlations([reading(x, lower=False)], y, resamples=4000)[0]
    assert found.p == pytest.approx(exact, abs=0.03)


def test_missing_values_leave_their_trial_out_and_no_spread_says_nothing():
    some = [0.9, None, 0.7, math.nan, 0.3, 0.8, 0.4, 0.2]
    assert one(some).n == 6
    assert one([1.0] * 8).spearman is None
    assert one([0.1, 0.2, *[None] * 6]).spearman is None
    unscored = one([1 - s for s in SCORES], [*SCORES[:7], None])
    assert unscored.n == 7


def test_the_difference_to_mir_is_paired():
    falling = [1 - s for s in SCORES]
    shuffled = [0.5, 0.1, 0.9, 0.3, 0.2, 0.8, 0.7, 0.4]
    mir, same, better = correlations(
        [reading(shuffled), reading(shuffled, name="perplexity"), reading(falling, name="loss")],
        SCORES,
        resamples=400,
    )
    assert mir.ahead is None
    assert (same.ahead.value, same.ahead.low, same.ahead.high) == (0, 0, 0)
    assert better.ahead.value == pytest.approx(1 - mir.spearman.value)


def course(*rows, others=()):
    """Correlations of MIR at growing shares of the training, and of others at the end."""
    steps = [reading(v, fraction=(i + 1) / len(rows)) for i, v in enumerate(rows)]
    ends = [reading(v, name=n) for n, v in others]
    return correlations([*steps, *ends], SCORES, resamples=400)


PERFECT = [1 - s for s in SCORES]
USELESS = [0.5, 0.1, 0.2, 0.3, 0.6, 0.8, 0.7, 0.4]


def test_mir_is_trusted_from_the_earliest_time_after_which_it_always_ranks_beyond_chance():
    found = judge(course(PERFECT, USELESS, PERFECT, PERFECT), "exact-match")
    assert (found.trust, found.since) == (Trust.YES, 0.75)
    assert found.sentence.startswith("MIR can be trusted for this study from 75% of the training")
    assert "nothing else that was read predicts better" in found.sentence


def test_mir_that_prefers_the_worse_misleads():
    found = judge(course(SCORES, others=[("gap", PERFECT)]), "exact-match")
    assert found.trust is Trust.NO and found.since is None
    assert "MIR misleads" in found.sentence
    assert found.better == (("gap", True),)
    assert "gap predicts better (+1.00" in found.sentence


def test_chance_is_said_to_be_chance_and_equal_readings_are_named_together():
    others = [("validation loss", PERFECT), ("perplexity", PERFECT)]
    found = judge(course(USELESS, others=others), "exact-match")
    assert found.trust is Trust.NOT_SHOWN
    assert "not told from chance" in found.sentence
    assert "validation loss and perplexity predict better" in found.sentence


def test_few_trials_conclude_nothing_even_where_they_agree():
    scores = SCORES[:4]
    found = judge(correlations([reading([1 - s for s in scores])], scores), "exact-match")
    assert found.trust is Trust.TOO_FEW
    assert found.sentence.startswith("4 trials with a downstream score are too few")
    assert judge([], "exact-match").trust is Trust.TOO_FEW
