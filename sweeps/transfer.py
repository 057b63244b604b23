"""From one study to the next: start where an earlier one was best, and see how far it was right.

A cheap proxy study (smaller model, fewer samples) is worth something only if it ranks variants as
the target does, so the rank correlation over the variants that both have tried is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mir.errors import ConfigError
from sweeps.space import Space

_SAME = 1e-6


@dataclass(frozen=True)
class Earlier:
    """A complete and feasible trial of another study. value: its objective, less is better."""

    number: int
    shown: dict[str, Any]
    value: float


def start_points(
    space: Space, studies: Iterable[Sequence[Earlier]], each: int
) -> list[dict[str, Any]]:
    """The best points of each study that this space has too, what it does not have left out.

    studies: of each, its trials, best first.
    """
    points: list[dict[str, Any]] = []
    for study in studies:
        fitting = (_fitting(space, trial.shown) for trial in study)
        points += [point for point in fitting if point][:each]
    return points


def _fitting(space: Space, shown: Mapping[str, Any]) -> dict[str, Any]:
    """What an axis of this space takes of a point; an axis that takes it not is drawn."""
    point: dict[str, Any] = {}
    for axis in space.axes:
        part = {name: shown[name] for name in axis.names() if name in shown}
        try:
            if axis.encode(part):
                point |= part
        except ConfigError:
            continue
    return point


@dataclass(frozen=True)
class Transfer:
    """How an earlier study ranks the `n` variants that both have finished. rho: None below 3.

    problem: why the study cannot be read, where it cannot.
    """

    study: str
    n: int
    rho: float | None
    p: float | None
    problem: str = ""

    def __str__(self) -> str:
        """One plain sentence."""
        if self.problem:
            return self.problem
        if self.rho is None:
            return f"{self.study}: {self.n} variants in common are too few to compare rankings"
        return (
            f"{self.study}: Spearman's rank correlation over the {self.n} variants in common is "
            f"{self.rho:+.2f} (p = {self.p:.2f})"
        )


def transfer(
    name: str, theirs: Sequence[Earlier], mine: Sequence[tuple[Mapping[str, Any], float]]
) -> Transfer:
    """Compare an earlier study's trials with this one's points and values, less is better."""
    pairs = []
    for trial in theirs:
        value = next((v for shown, v in mine if _same(shown, trial.shown)), None)
        if value is not None:
            pairs.append((trial.value, value))
    if len(pairs) < 3 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return Transfer(name, len(pairs), None, None)
    from scipy.stats import spearmanr

    result = spearmanr(*zip(*pairs, strict=True))
    return Transfer(name, len(pairs), float(result.statistic), float(result.pvalue))


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two points agree in all that both name, and name something in common."""
    common = a.keys() & b.keys()
    return bool(common) and all(_equal(a[name], b[name]) for name in common)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= _SAME * max(1.0, abs(a), abs(b))
    return bool(a == b)
