"""Proposals kept apart: a point that was tried, or nearly so, teaches little the second time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sweeps.axes import Value
from sweeps.cube import Cube
from sweeps.points import uniform
from sweeps.seeds import seed_of

NEAR = 0.005
"""Distance below which two points are one: half a per cent of an axis, or of a weight."""
_TRIES = 20


class Places:
    """Where the trials of a study lie, those that run included, by number.

    Distances are those of `Space.coordinates`: of mixtures, between weights. A point is turned
    into coordinates once, when somebody first asks what is near; one trial takes some 100 bytes.
    """

    def __init__(self, cube: Cube) -> None:
        """Of none."""
        self._cube = cube
        self._unread: dict[int, Mapping[str, Value]] = {}
        self._rows_ND = np.empty((0, 0))
        self._count = 0

    def note(self, number: int, raw: Mapping[str, Value]) -> None:
        """A trial has this point; one without parameters lies nowhere."""
        if raw:
            self._unread[number] = raw

    def kept_apart(
        self, chosen: Mapping[str, Value], number: int, seed: int
    ) -> Mapping[str, Value]:
        """The chosen point, or a random one if it is near any trial's but that of `number`.

        Where a small space has nothing else left, the chosen point stays.
        """
        for unread, raw in self._unread.items():
            self._put(unread, self._cube.space.coordinates(raw))
        self._unread.clear()
        values = chosen
        for attempt in range(_TRIES):
            here = self._cube.space.coordinates(self._cube.taken(values))
            if not self._near(here, number):
                return values
            units = uniform(seed_of(seed, "apart", attempt), self._cube.dimensions)
            values = self._cube.values(units)
        return chosen

    def _put(self, number: int, place: Sequence[float]) -> None:
        if number >= len(self._rows_ND):
            # NaN is near nothing: a trial that has no point.
            grown_ND = np.full((2 * number + 64, len(place)), np.nan)
            grown_ND[: self._count] = self._rows_ND[: self._count].reshape(-1, len(place))
            self._rows_ND = grown_ND
        self._rows_ND[number] = place
        self._count = max(self._count, number + 1)

    def _near(self, here: Sequence[float], number: int) -> bool:
        near = np.arange(self._count)
        for axis, place in enumerate(here):  # who is near is so on every axis; that leaves few
            if not near.size:
                return False
            near = near[np.abs(self._rows_ND[near, axis] - place) < NEAR]
        return any(n != number and math.dist(self._rows_ND[n], here) < NEAR for n in near)
