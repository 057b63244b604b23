"""A made-up table over a real recipe: to compare policies before anything has run.

MIR is a smooth bowl over the space with a random place for its bottom; it rises before it falls,
as real curves do (design section 3), and a corner of the space never learns to see, so its
deceptively low MIR does not count.
"""

from __future__ import annotations

import math

import numpy as np

from orchestrator.replay.table import Reading, Recorded, Table
from sweeps.axes import Raw
from sweeps.cube import Cube
from sweeps.points import filling
from sweeps.seeds import seed_of
from sweeps.space import space_of
from sweeps.spec import SweepSpec

POINTS = 256
_SECONDS = 3600.0  # of a full run


def synthetic(spec: SweepSpec) -> Table:
    """The table of a recipe; equal for equal seeds."""
    cube = Cube(space_of(spec))
    rng = np.random.default_rng(seed_of(spec.study.seed, "synthetic"))
    width = len(cube.space.coordinates(cube.raw([0.5] * cube.dimensions)))
    bottom, steepness = rng.random(width), rng.uniform(0.2, 2.0, width)
    blind = rng.normal(size=width)
    trials = []
    for number in range(POINTS):
        raw = cube.raw(filling(seed_of(spec.study.seed, "table"), cube.dimensions, number))
        place = np.array(cube.space.coordinates(raw))
        height = float((steepness * (place - bottom) ** 2).sum())
        sees = float(blind @ (place - 0.5)) > -0.5 * float(np.linalg.norm(blind)) * 0.5
        trials.append(_trial(spec, raw, height, sees))
    return Table(spec, tuple(trials))


def _trial(spec: SweepSpec, raw: Raw, height: float, sees: bool) -> Recorded:
    optim = spec.base.optim
    budget = optim.steps * optim.global_batch
    places = sorted({*range(0, budget, spec.base.score.every_samples), budget})
    readings = tuple(_reading(samples, samples / budget, height, sees) for samples in places)
    return Recorded(raw=raw, seconds=_SECONDS, scoring=0.02 * _SECONDS, readings=readings)


def _reading(samples: int, done: float, height: float, sees: bool) -> Reading:
    bump = 0.4 * math.exp(-(((done - 0.15) / 0.12) ** 2)) if done else 0.0
    learnt = 1 - math.exp(-3 * done)
    gain = 1.5 - min(height, 1.5) if sees else 1.8
    gap = (0.5 if sees else -0.2) * done
    return Reading(
        samples=samples,
        mir=3.5 + bump - gain * learnt,
        error=0.02,
        loss=7.0 - (3.0 * learnt if sees else -0.5 * done),
        gap=gap,
        gap_error=0.03,
    )
