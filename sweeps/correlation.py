"""Does an early, cheap reading rank trials as the downstream score does? Statistics, no effects.

Every correlation is turned so that +1 means: what the reading prefers scored better downstream.
Intervals are percentile bootstraps over trials (Efron 1979); a resample in which one side does not
vary says nothing and is left out. All readings share the resamples, so that differences between
them are paired. The p-value is that of a permutation test, because a bootstrap over few trials is
too sure of itself.

Legend: R resamples, n trials, P pairs of trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95
RESAMPLES = 2000
_FEWEST = 3
_CHUNK = 4_000_000  # pairs looked at together


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One reading of every trial at one time.

    fraction: of the training, 0 to 1. values: one a trial, None where a trial has none.
    """

    name: str
    fraction: float
    lower_is_better: bool
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its bootstrap interval; None where too few resamples say anything."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """How one reading ranks the trials against the downstream score.

    n: trials with both. spearman, kendall: None with fewer than three trials or without spread.
    p: two-sided, of a Spearman at least as large by chance.
    ahead: Spearman of this reading minus that of MIR at the same time, over the same trials.
    """

    name: str
    fraction: float
    n: int
    spearman: Interval | None
    kendall: Interval | None
    p: float | None
    ahead: Interval | None = None


def correlations(
    readings: Sequence[Reading],
    scores: Sequence[float | None],
    *,
    against: str = "MIR",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Correlation]:
    """Correlate every reading with the downstream score (higher is better), in their order.

    scores: one a trial, None for a trial without. against: the reading that `ahead` compares with.
    The same arguments give the same numbers.
    """
    found: list[Correlation] = []
    for reading in readings:
        rival = next(
            (r for r in readings if r.name == against and r.fraction == reading.fraction), None
        )
        found.append(_correlate(reading, rival, scores, resamples, seed))
    return found


def spearman_rows(x_Rn: Array, y_Rn: Array) -> Array:
    """Spearman's rank correlation of each row, ties at their mean rank; NaN without spread."""
    from scipy.stats import rankdata

    return _pearson(rankdata(x_Rn, axis=1), rankdata(y_Rn, axis=1))


def kendall_rows(x_Rn: Array, y_Rn: Array) -> Array:
    """Kendall's tau-b of each row; NaN without spread."""
    first, second = np.triu_indices(x_Rn.shape[1], k=1)
    step = max(1, _CHUNK // max(1, len(first)))
    parts = []
    for start in range(0, len(x_Rn), step):
        rows = slice(start, start + step)
        x_RP = np.sign(x_Rn[rows][:, first] - x_Rn[rows][:, second])
        y_RP = np.sign(y_Rn[rows][:, first] - y_Rn[rows][:, second])
        size = np.sqrt((x_RP**2).sum(axis=1) * (y_RP**2).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((x_RP * y_RP).sum(axis=1) / size)
    return np.concatenate(parts)


def _pearson(x_Rn: Array, y_Rn: Array) -> Array:
    x = x_Rn - x_Rn.mean(axis=1, keepdims=True)
    y = y_Rn - y_Rn.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Array = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return result


def _correlate(
    reading: Reading,
    rival: Reading | None,
    scores: Sequence[float | None],
    resamples: int,
    seed: int,
) -> Correlation:
    trials = [i for i, score in enumerate(scores) if _known(score) and _known(reading.values[i])]
    y = np.array([scores[i] for i in trials], dtype=np.float64)
    x = _oriented(reading, trials)
    n = len(trials)
    if n < _FEWEST or not (np.ptp(x) and np.ptp(y)):
        return Correlation(
            name=reading.name, fraction=reading.fraction, n=n, spearman=None, kendall=None, p=None
        )
    drawn_Rn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    ahead = None
    if rival is not None and rival.name != reading.name and _all_known(rival, trials):
        other = _oriented(rival, trials)
        if np.ptp(other):
            gain = spearman_rows(x[drawn_Rn], y[drawn_Rn])
            gain = gain - spearman_rows(other[drawn_Rn], y[drawn_Rn])
            value = spearman_rows(x[None], y[None])[0] - spearman_rows(other[None], y[None])[0]
            ahead = _interval(float(value), gain)
    return Correlation(
        name=reading.name,
        fraction=reading.fraction,
        n=n,
        spearman=_bootstrap(spearman_rows, x, y, drawn_Rn),
        kendall=_bootstrap(kendall_rows, x, y, drawn_Rn),
        p=_permutation_p(x, y, resamples, seed),
        ahead=ahead,
    )


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _all_known(reading: Reading, trials: Sequence[int]) -> bool:
    return all(_known(reading.values[i]) for i in trials)


def _oriented(reading: Reading, trials: Sequence[int]) -> Array:
    values = np.array([reading.values[i] for i in trials], dtype=np.float64)
    return -values if reading.lower_is_better else values


def _bootstrap(
    measure: Callable[[Array, Array], Array], x: Array, y: Array, drawn_Rn: NDArray[np.int64]
) -> Interval:
    return _interval(float(measure(x[None], y[None])[0]), measure(x[drawn_Rn], y[drawn_Rn]))


def _interval(value: float, drawn: Array) -> Interval:
    """Percentile interval; without bounds where most resamples say nothing."""
    told = drawn[np.isfinite(drawn)]
    if len(told) * 2 < len(drawn):
        return Interval(value=value, low=None, high=None)
    low, high = np.quantile(told, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def _permutation_p(x: Array, y: Array, resamples: int, seed: int) -> float:
    """Share of orders of the trials that rank at least as strongly; the given one counts too."""
    orders = np.random.default_rng(seed + 1).permuted(
        np.tile(np.arange(len(x)), (resamples, 1)), axis=1
    )
    found = abs(float(spearman_rows(x[None], y[None])[0]))
    by_chance = np.abs(spearman_rows(x[orders], np.broadcast_to(y, orders.shape)))
    return float((1 + np.count_nonzero(by_chance >= found - 1e-12)) / (1 + resamples))
