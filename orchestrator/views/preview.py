"""A few variants of a sweep drawn at random, without Optuna: what the space looks like."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from mir.errors import ConfigError
from orchestrator.placement import Fit, fit
from orchestrator.ports import Capacity
from sweeps.axes import Shown, Value, plain
from sweeps.space import space_of
from sweeps.spec import ResourceSpec, SweepSpec


class _Draws:
    """Stands in for an Optuna trial: every value uniform in its range, or in its logarithm."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Uniform between low and high; `name` is Optuna's and not needed here."""
        del name
        if log:
            return math.exp(self._rng.uniform(math.log(low), math.log(high)))
        return self._rng.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """As `suggest_float`, rounded to an integer within the range."""
        return min(high, max(low, round(self.suggest_float(name, low, high, log=log))))

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """Each choice with the same probability."""
        del name
        return self._rng.choice(choices)


@dataclass(frozen=True)
class Variant:
    """One sampled variant. refused: why it is no valid job; `shown` then holds raw parameters.

    workers: its number of ranks, None for the recipe's.
    """

    shown: Shown
    workers: int | None
    refused: str = ""

    def fit(self, resources: ResourceSpec, capacity: Capacity, free: Capacity) -> Fit:
        """Whether it would run on a cluster: now, later or never."""
        if self.refused:
            return Fit("never", self.refused)
        return fit(capacity, free, resources.of(self.workers))


def sampled(spec: SweepSpec, variants: int) -> list[Variant]:
    """So many random variants; equal for equal recipes."""
    space = space_of(spec)
    draws = _Draws(random.Random(spec.study.seed))
    found = []
    for _ in range(variants):
        raw = space.draw(draws)
        workers = space.workers(raw)
        try:
            found.append(Variant(space.job(raw)[1], workers))
        except ConfigError as error:
            shown = {name: plain(value) for name, value in raw.items()}
            found.append(Variant(shown, workers, str(error)))
    return found


def preview(spec: SweepSpec, variants: int) -> list[Shown]:
    """The parameters, as people see them, of so many random variants."""
    return [variant.shown for variant in sampled(spec, variants)]
