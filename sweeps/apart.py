"""Proposals kept apart: a point that was tried, or nearly so, teaches little the second time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sweeps.axes import Value
from sweeps.cube import Cube
from sweeps.points import uniform
from sweeps.seeds import seed_of
from sweeps.told import Told

NEAR = 0.005
"""Distance below which two points are one: half a per cent of an axis, or of a weight."""
_TRIES = 20


def kept_apart(
    cube: Cube, chosen: Mapping[str, Value], told: Sequence[Told], seed: int
) -> Mapping[str, Value]:
    """The chosen point, or a random one if it is near any that was tried or runs.

    Distances are those of `Space.coordinates`: of mixtures, between weights. Where a small space
    has nothing else left, the chosen point stays.
    """
    taken = [cube.space.coordinates(t.raw) for t in told]
    values = chosen
    for attempt in range(_TRIES):
        here = cube.space.coordinates(cube.taken(values))
        if not any(_near(here, there) for there in taken):
            return values
        values = cube.values(uniform(seed_of(seed, "apart", attempt), cube.dimensions))
    return chosen


def _near(a: Sequence[float], b: Sequence[float]) -> bool:
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += (x - y) ** 2
        if total >= NEAR * NEAR:
            return False
    return math.sqrt(total) < NEAR
