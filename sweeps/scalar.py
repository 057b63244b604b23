"""Several objectives as one, with other weights for every trial, so that a whole front is found.

Source: ParEGO, Knowles 2006: an augmented Chebyshev norm of values scaled to unit ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sweeps.axes import Value
from sweeps.samplers import Sampler
from sweeps.seeds import seed_of
from sweeps.told import Told

_REST = 0.05  # share of the sum beside the maximum, which keeps weakly dominated points away


class Scalarised:
    """A sampler of one value for studies of several."""

    def __init__(self, make: Callable[[], Sampler], seed: int) -> None:
        self._make, self._seed = make, seed

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:
        """What a fresh sampler proposes that is told the norms of this trial's weights."""
        rng = np.random.default_rng(seed_of(self._seed, "weights", number))
        return self._make().propose(number, scalarised(told, rng))


def scalarised(told: Sequence[Told], rng: np.random.Generator) -> list[Told]:
    """The same trials with one value each; those that lack a value lose the others."""
    count = max((len(t.values) for t in told), default=0)
    whole = [t for t in told if len(t.values) == count and count > 0]
    shares = rng.dirichlet([1.0] * max(count, 1))
    low = [min(t.values[k] for t in whole) for k in range(count)] if whole else []
    span = [max(t.values[k] for t in whole) - low[k] or 1.0 for k in range(count)] if whole else []

    def single(t: Told) -> Told:
        if len(t.values) != count or count == 0:
            return replace(t, values=(), errors=())
        parts = [shares[k] * (t.values[k] - low[k]) / span[k] for k in range(count)]
        errors = [shares[k] * error / span[k] for k, error in enumerate(t.errors)]
        value = float(max(parts) + _REST * sum(parts))
        return replace(t, values=(value,), errors=(float(math.hypot(*errors)),))

    return [single(t) for t in told]
