"""Points of the unit cube that need no model: independent ones, and a sequence that fills it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sweeps.gaussian import Array

_LEAST = 6  # the sequence is made 64 points at a time at least


def uniform(seed: int, dimensions: int) -> list[float]:
    """An independent point."""
    return [float(unit) for unit in np.random.default_rng(seed).random(dimensions)]


def filling(seed: int, dimensions: int, number: int) -> list[float]:
    """Point `number` of a scrambled Sobol sequence: every prefix covers the cube evenly.

    Source: Owen, Scrambling Sobol' and Niederreiter-Xing points (1998).
    """
    block = max(_LEAST, number.bit_length())
    return [float(unit) for unit in _sequence(seed, dimensions, block)[number]]


@lru_cache(maxsize=4)
def _sequence(seed: int, dimensions: int, block: int) -> Array:
    from scipy.stats.qmc import Sobol

    rng = np.random.default_rng(seed)
    return np.asarray(Sobol(dimensions, scramble=True, rng=rng).random_base2(block))
