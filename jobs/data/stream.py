"""Which sample stands at which position of a mixture: a pure function, nothing is stored.

Sources share out positions by a golden-ratio (Weyl) sequence instead of independent draws: after
n positions each source has n times its weight, give or take a few samples, from the first batch
on. Counting how often a source came before a position is a floor sum, so any position can be
asked for directly: resuming costs nothing and no rank needs to know what another has read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import isqrt

from mir.errors import ConfigError

_WORD = 1 << 64
# 128 bits: with a modulus of m the sequence is as even as a true golden ratio up to sqrt(m) points.
_MODULUS = 1 << 128
_GOLDEN = (isqrt(5 << 256) - _MODULUS) // 2
_ROUNDS = 6


def mix64(value: int) -> int:
    """A well-mixed 64-bit hash of an integer (splitmix64: Steele, Lea and Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) % _WORD
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % _WORD
    return value ^ (value >> 31)


def floor_sum(n: int, modulus: int, a: int, b: int) -> int:
    """Sum of floor((a j + b) / modulus) for j = 0..n-1, in O(log modulus) (a, b >= 0)."""
    total = 0
    while n > 0:
        total += (n - 1) * n // 2 * (a // modulus) + n * (b // modulus)
        a, b = a % modulus, b % modulus
        top = a * n + b
        n, b, modulus, a = top // modulus, top % modulus, a, modulus
        if modulus == 0:
            break
    return total


def permuted(index: int, size: int, key: int) -> int:
    """Where a key-dependent permutation of 0..size-1 sends `index`, without storing it.

    A balanced Feistel network over the next power of four, walked until it lands inside.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = [mix64(key + turn) for turn in range(_ROUNDS)]
    while True:
        left, right = index >> half, index & mask
        for k in keys:
            left, right = right, left ^ (mix64(k ^ right) & mask)
        index = (left << half) | right
        if index < size:
            return index


class MixtureStream:
    """An endless order of samples over several sources.

    Each source is visited in a fresh random order every epoch, without repeats inside an epoch.
    A source of weight 0 never appears. Equal arguments give an equal order, for ever and on every
    machine: it does not depend on ranks, workers, or the version of a library.
    """

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, float], seed: int) -> None:
        """Sizes and weights by source name; weights need not sum to 1.

        Raises ConfigError for a negative weight, all weights 0, or an empty source in use.
        """
        total = sum(weights.values())
        if min(weights.values(), default=-1.0) < 0 or not 0 < total < float("inf"):
            raise ConfigError(
                f"data.mixture: weights {dict(weights)} are no mixture: "
                "give finite, non-negative weights of which at least one is above 0"
            )
        self._names = [name for name, weight in weights.items() if weight > 0]
        empty = [name for name in self._names if sizes[name] < 1]
        if empty:
            raise ConfigError(
                f"data.sources.{empty[0]}: no samples in it: remove it from the mixture"
            )
        self._sizes = [sizes[name] for name in self._names]
        self._seed = mix64(seed % _WORD)
        self._offset = self._seed * _WORD + mix64(self._seed)
        self._bounds = [0]
        running = 0.0
        for name in self._names:
            running += weights[name]
            self._bounds.append(round(running / total * _MODULUS))
        self._bounds[-1] = _MODULUS

    def pick(self, position: int) -> tuple[str, int]:
        """Source name and sample index at `position` (0, 1, 2, ...)."""
        point = (position * _GOLDEN + self._offset) % _MODULUS
        which = bisect_right(self._bounds, point) - 1
        epoch, place = divmod(self._count(which, position), self._sizes[which])
        key = mix64(self._seed ^ mix64(mix64(which) + epoch))
        return self._names[which], permuted(place, self._sizes[which], key)

    def counts(self, positions: int) -> dict[str, int]:
        """How many of the first `positions` samples come from each source of weight above 0."""
        return {name: self._count(i, positions) for i, name in enumerate(self._names)}

    def epochs(self, start: int, names: Sequence[str]) -> list[tuple[str, int]]:
        """Source and its epoch at each position from `start` on, if these sources have them."""
        sizes = dict(zip(self._names, self._sizes, strict=True))
        visits, found = self.counts(start), []
        for name in names:
            found.append((name, visits[name] // sizes[name]))
            visits[name] += 1
        return found

    def _count(self, which: int, positions: int) -> int:
        return self._below(self._bounds[which + 1], positions) - self._below(
            self._bounds[which], positions
        )

    def _below(self, bound: int, positions: int) -> int:
        """How many of the first `positions` points of the Weyl sequence lie below `bound`."""
        shifted = self._offset + _MODULUS
        return floor_sum(positions, _MODULUS, _GOLDEN, shifted) - floor_sum(
            positions, _MODULUS, _GOLDEN, shifted - bound
        )
