"""Who chooses the next point, by the recipe's names.

A sampler answers from its arguments and the study's seed alone: what is drawn for trial n depends
on the seed, n, and what was told before, never on how long the process has lived. What it keeps
between calls only saves time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mir.errors import ConfigError
from sweeps.axes import Value
from sweeps.cube import Cube
from sweeps.seeds import seed_of
from sweeps.spec import StudySpec
from sweeps.told import Told


class ExhaustedError(ConfigError):
    """A sampler has no point left."""


class Sampler(Protocol):
    """Chooses points of a cube."""

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:
        """A value for every parameter of the cube, those of branches not taken included.

        told: all other trials, in order of number. Raises ExhaustedError if there is none left.
        """
        ...


class _Random:
    def __init__(self, cube: Cube, spec: StudySpec) -> None:
        self._cube, self._spec = cube, spec

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:  # noqa: ARG002
        from sweeps.points import uniform

        return self._cube.values(uniform(seed_of(self._spec.seed, number), self._cube.dimensions))


class _Filling:
    def __init__(self, cube: Cube, spec: StudySpec) -> None:
        self._cube, self._spec = cube, spec

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:  # noqa: ARG002
        from sweeps.points import filling

        units = filling(seed_of(self._spec.seed, "filling"), self._cube.dimensions, number)
        return self._cube.values(units)


class _Bayes:
    """Points that fill the space to begin with, then those of `sweeps.bayes`."""

    def __init__(self, cube: Cube, spec: StudySpec) -> None:
        self._cube, self._spec = cube, spec
        self._first = _Filling(cube, spec)

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:
        import numpy as np

        from sweeps.bayes import propose

        if number < self._spec.startup_trials or sum(t.ended for t in told) < 2:
            return self._first.propose(number, told)
        rng = np.random.default_rng(seed_of(self._spec.seed, number))
        return self._cube.values(propose(self._cube, told, rng))


class _Nsga2:
    """Points that fill the space to begin with, then children of the best."""

    def __init__(self, cube: Cube, spec: StudySpec) -> None:
        self._cube, self._spec = cube, spec
        self._first = _Filling(cube, spec)

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:
        import numpy as np

        from sweeps.evolution import breed

        if number < self._spec.startup_trials or not any(t.ended for t in told):
            return self._first.propose(number, told)
        rng = np.random.default_rng(seed_of(self._spec.seed, number))
        return self._cube.values(breed(self._cube, told, rng))


class _CmaEs:
    def __init__(self, cube: Cube, spec: StudySpec) -> None:
        from sweeps.evolution import Evolution

        self._cube, self._spec = cube, spec
        self._evolution = Evolution(cube, seed_of(spec.seed, "evolution"))

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:
        units = self._evolution.propose(told, seed_of(self._spec.seed, number))
        return self._cube.values(units)


class _Grid:
    """The points of a grid one after the other; `study.grid_levels` places on each axis."""

    def __init__(self, cube: Cube, spec: StudySpec) -> None:
        self._cube = cube
        self._points = cube.space.grid(spec.grid_levels)

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:  # noqa: ARG002
        taken = {tuple(sorted(t.raw.items())) for t in told}
        for raw in self._points:
            if tuple(sorted(raw.items())) not in taken:
                return self._cube.values(self._cube.units(raw)) | raw
        raise ExhaustedError(
            f"all {len(self._points)} points of the grid are tried; more need a study of their "
            "own, with a larger study.grid_levels"
        )


def _tpe(cube: Cube, spec: StudySpec) -> Sampler:
    from sweeps.optuna_sampler import OptunaSampler, tpe

    return OptunaSampler(cube, spec, tpe)


SAMPLERS: Mapping[str, Callable[[Cube, StudySpec], Sampler]] = {
    "gp": _Bayes,
    "tpe": _tpe,
    "cmaes": _CmaEs,
    "nsga2": _Nsga2,
    "qmc": _Filling,
    "random": _Random,
    "grid": _Grid,
}

BLIND = ("qmc", "random")
"""Those that draw from the seed and the number alone: `told` may be left empty."""

_OWN_FRONT = ("nsga2", "qmc", "random", "grid")  # take several values, or none


def make_sampler(cube: Cube, spec: StudySpec) -> Sampler:
    """The recipe's sampler; one that takes a single value is given norms of several."""
    make = SAMPLERS[spec.sampler]
    if not spec.also or spec.sampler in _OWN_FRONT:
        return make(cube, spec)
    from sweeps.scalar import Scalarised

    return Scalarised(lambda: make(cube, spec), spec.seed)
