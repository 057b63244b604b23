"""Samplers that breed new points from the best old ones: `nsga2` and `cmaes`.

Both rank before they breed, feasible trials before infeasible ones whatever their values, so a
collapsed trial's low MIR can never make it a parent while better ones exist.

Sources: NSGA-II with constraint domination, Deb et al. 2002, here with one child at a time from
the best of all trials told so far; CMA-ES, Hansen and Ostermeier 2001, as the package `cmaes`
has it (Optuna's wrapper ignores constraints).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from sweeps.cube import Cube
from sweeps.gaussian import Array
from sweeps.pareto import crowding, fronts
from sweeps.told import Told

if TYPE_CHECKING:
    from cmaes import CMA

POPULATION = 20
_MUTATION = 0.1  # width of a step, in parts of the cube
_SIGMA = 0.3  # of the first generation of CMA-ES
_STRIDE = 16  # generations from one kept CMA-ES to the next: trials end out of order


def breed(cube: Cube, told: Sequence[Told], rng: np.random.Generator) -> list[float]:
    """A child of two of the best trials."""
    adults = _best([t for t in told if t.ended])
    mother, father = (_tournament(adults, rng) for _ in range(2))
    pairs = zip(cube.units(mother.raw), cube.units(father.raw), strict=True)
    child = [a if rng.random() < 0.5 else b for a, b in pairs]
    step = rng.normal(0, _MUTATION, len(child)) * (rng.random(len(child)) < 1 / len(child))
    return [float(unit) for unit in np.clip(np.array(child) + step, 0, 1)]


def _best(ended: Sequence[Told]) -> list[Told]:
    """The survivors, best first: by front and, within it, the lonely ones before the crowded."""
    feasible = [t for t in ended if t.feasible and t.values]
    if all(len(t.values) == 1 for t in feasible):
        order_by_value = sorted(feasible, key=lambda t: t.values)
        others = sorted((t for t in ended if not (t.feasible and t.values)), key=_broken)
        return [*order_by_value[:POPULATION], *others][:POPULATION]
    ranked: list[Told] = []
    for front in fronts([t.values for t in feasible], enough=POPULATION):
        lonely = crowding([feasible[i].values for i in front])
        order = sorted(range(len(front)), key=lambda k: -lonely[k])
        ranked += [feasible[front[k]] for k in order]
    others = [t for t in ended if not (t.feasible and t.values)]
    return [*ranked, *sorted(others, key=_broken)][:POPULATION]


def _broken(t: Told) -> float:
    return t.violation


def _tournament(adults: Sequence[Told], rng: np.random.Generator) -> Told:
    return adults[min(int(rng.integers(len(adults))) for _ in range(2))]


class Evolution:
    """CMA-ES over the cube; choices are cut out of a continuous axis, in equal shares."""

    def __init__(self, cube: Cube, seed: int) -> None:
        self._cube, self._seed = cube, seed
        self._size = 4 + int(3 * np.log(cube.dimensions))
        self._heard: list[Told] = []
        self._kept: list[CMA] = []  # after 0, _STRIDE, 2 * _STRIDE, ... generations

    def propose(self, told: Sequence[Told], seed: int) -> list[float]:
        """A draw from the distribution that the generations told so far have led to."""
        ended = [t for t in told if t.ended]
        whole = ended[: len(ended) // self._size * self._size]
        strategy = self._led_by(whole)
        strategy.reseed_rng(seed)
        return [float(unit) for unit in strategy.ask()]

    def _led_by(self, whole: Sequence[Told]) -> CMA:
        """The strategy that heard these; goes on from the last one kept that heard the same."""
        pairs = enumerate(zip(self._heard, whole, strict=False))
        same = next((n for n, (a, b) in pairs if a != b), min(len(self._heard), len(whole)))
        leap = self._size * _STRIDE
        self._kept = self._kept[: same // leap + 1] or [self._fresh()]
        self._heard = list(whole)
        strategy = _twin(self._kept[-1])
        for start in range((len(self._kept) - 1) * leap, len(whole), self._size):
            self._tell(strategy, whole[start : start + self._size])
            if (start + self._size) % leap == 0:
                self._kept.append(_twin(strategy))
        return strategy

    def _fresh(self) -> CMA:
        from cmaes import CMA

        d = self._cube.dimensions
        return CMA(
            mean=np.full(d, 0.5),
            sigma=_SIGMA,
            bounds=np.array([[0.0, 1.0]] * d),
            seed=self._seed,
            population_size=self._size,
        )

    def _tell(self, strategy: CMA, generation: Sequence[Told]) -> None:
        """Ranks instead of values: only they matter to CMA-ES, and every violation ranks last."""
        order = sorted(generation, key=_rank)
        points: list[tuple[Array, float]] = [
            (np.array(self._cube.units(t.raw)), float(place)) for place, t in enumerate(order)
        ]
        strategy.tell(points)


def _twin(strategy: CMA) -> CMA:
    # Copied in its own way, as for a pickle, it loses the last digits of its covariance.
    twin = object.__new__(type(strategy))
    vars(twin).update(deepcopy(vars(strategy)))
    return twin


def _rank(t: Told) -> tuple[bool, bool, float]:
    return (not t.feasible, not t.values, t.values[0] if t.feasible and t.values else t.violation)
