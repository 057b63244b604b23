"""A point on the simplex as parameters between 0 and 1 that every sampler can draw.

Both encodings map independent uniform parameters to the uniform distribution over mixtures
(Dirichlet with all concentrations 1); normalising uniform numbers would crowd the middle.
Which one is used was decided by a benchmark: infra/decisions/0002-simplex-encoding.md.

Sources: Devroye, Non-Uniform Random Variate Generation (1986), chapter 11, for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Encoding = Literal["exponential", "stick-breaking"]
DEFAULT_ENCODING: Encoding = "stick-breaking"
TOLERANCE = 1e-9


def _exponential_decode(u: Sequence[float], _size: int) -> list[float]:
    """w_i = -log(u_i), normalised: exponential spacings. One parameter a weight."""
    spacings = [-math.log(max(value, 1e-300)) for value in u]
    total = sum(spacings)
    return [s / total for s in spacings] if total > 0 else [1 / len(u)] * len(u)


def _exponential_encode(weights: Sequence[float]) -> list[float]:
    """The preimage whose spacings sum to their expectation, the number of weights."""
    return [math.exp(-len(weights) * weight) for weight in weights]


def _stick_decode(u: Sequence[float], size: int) -> list[float]:
    """Break off v_i = 1 - (1 - u_i)^(1/(k-i)) of what is left. One parameter fewer than weights."""
    left, weights = 1.0, []
    for i, value in enumerate(u, start=1):
        part = 1.0 - (1.0 - value) ** (1.0 / (size - i))
        weights.append(left * part)
        left *= 1.0 - part
    return [*weights, left]


def _stick_encode(weights: Sequence[float]) -> list[float]:
    size, left, u = len(weights), 1.0, []
    for i, weight in enumerate(weights[:-1], start=1):
        # Where nothing is left, every u gives the same mixture; the middle is as good as any.
        part = min(weight / left, 1.0) if left > TOLERANCE else 0.5
        u.append(1.0 - (1.0 - part) ** (size - i))
        left -= weight
    return u


@dataclass(frozen=True)
class _Codec:
    decode: Callable[[Sequence[float], int], list[float]]
    encode: Callable[[Sequence[float]], list[float]]
    dropped: int


_CODECS: dict[Encoding, _Codec] = {
    "exponential": _Codec(_exponential_decode, _exponential_encode, dropped=0),
    "stick-breaking": _Codec(_stick_decode, _stick_encode, dropped=1),
}


@dataclass(frozen=True, kw_only=True)
class Simplex:
    """Weights of `names` that vary, each at least `floor`, beside weights that are `fixed`.

    Uniform parameters give the uniform distribution over all mixtures with these floors and
    fixed weights. Raises ValueError if no mixture, or only one, satisfies them.
    """

    names: tuple[str, ...]
    floor: float = 0.0
    fixed: Mapping[str, float] = field(default_factory=dict)
    encoding: Encoding = DEFAULT_ENCODING

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise ValueError("nothing varies: leave at least two sources free")
        if self.free <= TOLERANCE:
            raise ValueError(
                f"floors and fixed weights sum to {1 - self.free:g}, which leaves nothing of 1 "
                "to distribute: lower them"
            )

    @property
    def free(self) -> float:
        """The weight that is left to distribute once floors and fixed weights are served."""
        return 1.0 - sum(self.fixed.values()) - self.floor * len(self.names)

    @property
    def parameters(self) -> tuple[str, ...]:
        """One name a parameter: the source whose weight it moves most."""
        return self.names[: len(self.names) - _CODECS[self.encoding].dropped]

    def decode(
        self, u: Sequence[float], caps: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Weights by source, summing to 1, from parameters in [0, 1].

        caps: greatest weight by source. What a capped source cannot take goes to the others in
        proportion, so mixtures beyond a cap land on its boundary. Raises ValueError if the caps
        leave no mixture.
        """
        shares = _CODECS[self.encoding].decode(u, len(self.names))
        varied = [self.floor + self.free * share for share in shares]
        weights = dict(zip(self.names, varied, strict=True)) | dict(self.fixed)
        return self._capped(weights, caps) if caps else weights

    def encode(self, weights: Mapping[str, float]) -> list[float]:
        """Parameters that decode to `weights`. Raises ValueError for weights outside."""
        unknown = set(weights) - set(self.names) - set(self.fixed)
        if unknown:
            raise ValueError(f"unknown sources {sorted(unknown)}")
        if abs(sum(weights.values()) - 1.0) > 1e-6:
            raise ValueError(f"weights sum to {sum(weights.values()):g} instead of 1")
        for name, weight in self.fixed.items():
            if abs(weights.get(name, 0.0) - weight) > 1e-6:
                raise ValueError(f"the weight of '{name}' is fixed at {weight:g}")
        low = [name for name in self.names if weights.get(name, 0.0) < self.floor - 1e-6]
        if low:
            raise ValueError(f"the weight of '{low[0]}' is below the floor {self.floor:g}")
        shares = [
            max(0.0, (weights.get(name, 0.0) - self.floor) / self.free) for name in self.names
        ]
        return [min(1.0, max(0.0, u)) for u in _CODECS[self.encoding].encode(shares)]

    def uniform(self) -> dict[str, float]:
        """The mixture in which all that vary weigh the same."""
        each = self.floor + self.free / len(self.names)
        return dict.fromkeys(self.names, each) | dict(self.fixed)

    def natural(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The mixture in which all that vary weigh by their sizes, above the floor."""
        total = sum(sizes[name] for name in self.names)
        weights = {name: self.floor + self.free * sizes[name] / total for name in self.names}
        return weights | dict(self.fixed)

    def _capped(self, weights: dict[str, float], caps: Mapping[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            least = weight if name in self.fixed else self.floor
            if least > caps.get(name, 1.0) + TOLERANCE:
                raise ValueError(
                    f"'{name}' weighs at least {least:g} but its epochs allow {caps[name]:.4g}"
                )
        room = sum(min(caps.get(name, 1.0), 1.0) for name in self.names)
        if room < 1.0 - sum(self.fixed.values()) - TOLERANCE:
            raise ValueError(
                f"the caps by epochs allow weights that sum to {room:.4g} only: raise max_epochs"
            )
        varying = {name: weights[name] for name in self.names}
        return weights | _spill(varying, caps)


def _spill(weights: dict[str, float], caps: Mapping[str, float]) -> dict[str, float]:
    """Hand what is above a cap to the sources below theirs, until none is above."""
    full: set[str] = set()
    while above := [n for n, w in weights.items() if w > caps.get(n, 1.0) + TOLERANCE]:
        excess = sum(weights[name] - caps[name] for name in above)
        weights |= {name: caps[name] for name in above}
        full |= set(above)
        takers = [name for name in weights if name not in full]
        if not takers:
            break
        base = sum(weights[name] for name in takers)
        for name in takers:
            weights[name] += excess * (weights[name] / base if base > 0 else 1 / len(takers))
    return weights
