"""Which of many points none beats in everything. All values: less is better."""

from __future__ import annotations

import math
from collections.abc import Sequence


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a is nowhere worse than b and somewhere better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Places of the points that no other dominates, in order."""
    return fronts(points)[0] if points else []


def fronts(points: Sequence[Sequence[float]], enough: float = math.inf) -> list[list[int]]:
    """All points by front: the first is dominated by none, the next by the first alone, ...

    enough: once the fronts hold so many points, no further front is begun.
    """
    found: list[list[int]] = []
    # Sorted, a point can only be dominated by one before it.
    for i in sorted(range(len(points)), key=lambda i: tuple(points[i])):
        place = next(
            (
                level
                for level, members in enumerate(found)
                if not any(dominates(points[j], points[i]) for j in reversed(members))
            ),
            len(found),
        )
        if place == len(found):
            if sum(map(len, found)) >= enough:
                continue
            found.append([])
        found[place].append(i)
    return [sorted(members) for members in found]


def crowding(points: Sequence[Sequence[float]]) -> list[float]:
    """How much room each point of a front has; the ends have infinite room (Deb et al. 2002)."""
    room = [0.0] * len(points)
    for k in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][k])
        spread = points[order[-1]][k] - points[order[0]][k]
        room[order[0]] = room[order[-1]] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            room[here] += (points[after][k] - points[before][k]) / spread if spread else 0.0
    return room
