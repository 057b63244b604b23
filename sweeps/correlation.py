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
from collections.abc import Sequence
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
    drawn: dict[tuple[int, ...], _Resampled] = {}
    rivals = {one.fraction: one for one in readings if one.name == against}
    found: list[Correlation] = []
    for reading in readings:
        trials = tuple(
            i for i, score in enumerate(scores) if _known(score) and _known(reading.values[i])
        )
        if trials not in drawn:
            drawn[trials] = _Resampled(trials, scores, resamples, seed)
        rival = rivals.get(reading.fraction)
        found.append(drawn[trials].correlate(reading, None if rival is reading else rival))
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


class _Resampled:
    """The score over one set of trials, with its resamples and permutations drawn once."""

    def __init__(
        self,
        trials: tuple[int, ...],
        scores: Sequence[float | None],
        resamples: int,
        seed: int,
    ) -> None:
        self._trials = trials
        self._y = np.array([scores[i] for i in trials], dtype=np.float64)
        n = len(trials)
        self._told = n >= _FEWEST and bool(np.ptp(self._y))
        if not self._told:
            return
        self._drawn_Rn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
        self._y_Rn = self._y[self._drawn_Rn]
        orders = np.random.default_rng(seed + 1).permuted(
            np.tile(np.arange(n), (resamples, 1)), axis=1
        )
        self._permuted_Rn = self._y[orders]
        self._last: tuple[Reading, Array] | None = None

    def correlate(self, reading: Reading, rival: Reading | None) -> Correlation:
        """The reading's correlations; `ahead` of the rival where that has the same trials."""
        x = _oriented(reading, self._trials)
        if not self._told or not np.ptp(x):
            return Correlation(
                name=reading.name, fraction=reading.fraction, n=len(self._trials),
                spearman=None, kendall=None, p=None,
            )  # fmt: skip
        rho, draws_R = float(spearman_rows(x[None], self._y[None])[0]), self._spearman(x)
        return Correlation(
            name=reading.name,
            fraction=reading.fraction,
            n=len(x),
            spearman=_interval(rho, draws_R),
            kendall=_interval(
                float(kendall_rows(x[None], self._y[None])[0]),
                kendall_rows(x[self._drawn_Rn], self._y_Rn),
            ),
            p=self._p(x, rho),
            ahead=self._ahead(rho, draws_R, rival),
        )

    def _spearman(self, x: Array) -> Array:
        return spearman_rows(x[self._drawn_Rn], self._y_Rn)

    def _ahead(self, rho: float, draws_R: Array, rival: Reading | None) -> Interval | None:
        if rival is None or not all(_known(rival.values[i]) for i in self._trials):
            return None
        other = _oriented(rival, self._trials)
        if not np.ptp(other):
            return None
        if self._last is None or self._last[0] is not rival:
            self._last = rival, self._spearman(other)
        value = rho - float(spearman_rows(other[None], self._y[None])[0])
        return _interval(value, draws_R - self._last[1])

    def _p(self, x: Array, rho: float) -> float:
        """Share of orders of the trials that rank as strongly; the given one counts too."""
        by_chance_R = np.abs(
            spearman_rows(np.broadcast_to(x, self._permuted_Rn.shape), self._permuted_Rn)
        )
        strong = int(np.count_nonzero(by_chance_R >= abs(rho) - 1e-12))
        return (1 + strong) / (1 + len(by_chance_R))


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _oriented(reading: Reading, trials: Sequence[int]) -> Array:
    values = np.array([reading.values[i] for i in trials], dtype=np.float64)
    return -values if reading.lower_is_better else values


def _interval(value: float, drawn: Array) -> Interval:
    """Percentile interval; without bounds where most resamples say nothing."""
    told = drawn[np.isfinite(drawn)]
    if len(told) * 2 < len(drawn):
        return Interval(value=value, low=None, high=None)
    low, high = np.quantile(told, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=float(low), high=float(high))
