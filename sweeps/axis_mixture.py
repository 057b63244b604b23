"""The axis of a data mixture: simplex parameters inside, weights by source outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mir.errors import ConfigError
from sweeps.axes import Path, Raw, Shown, Suggester, Value
from sweeps.mixtures import Simplex


@dataclass(frozen=True)
class MixtureAxis:
    """A point on the simplex of the sources' weights. others: sources that always weigh 0."""

    path: Path
    raw: str
    short: str
    simplex: Simplex
    others: tuple[str, ...] = ()
    max_epochs: float | None = None

    def draw(self, trial: Suggester) -> Raw:
        """Ask for the simplex's parameters, each between 0 and 1."""
        return {name: trial.suggest_float(name, 0.0, 1.0) for name in self._parameters()}

    def setting(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> Any:
        """Weight by source, summing to 1, within the caps that the job's budget gives."""
        weights = self.simplex.decode(self._u(raw), self._caps(job))
        return weights | dict.fromkeys(self.others, 0.0)

    def shown(self, raw: Mapping[str, Value], setting: Any) -> Shown:  # noqa: ARG002
        """Weights, not u."""
        return {f"{self.short}/{name}": weight for name, weight in setting.items()}

    def encode(self, shown: Mapping[str, Any]) -> Raw:
        """Parameters of the weights, if they are given."""
        mark = f"{self.short}/"
        weights = {n.removeprefix(mark): w for n, w in shown.items() if n.startswith(mark)}
        if not weights:
            return {}
        given = {name: weight for name, weight in weights.items() if name not in self.others}
        try:
            u = self.simplex.encode(given)
        except ValueError as error:
            raise ConfigError(f"{self.short}: {error}.") from error
        return dict(zip(self._parameters(), u, strict=True))

    def natural(self, setting: Any) -> dict[str, Any]:  # noqa: ARG002
        """All that vary weigh the same."""
        return {f"{self.short}/{name}": w for name, w in self.simplex.uniform().items()}

    def names(self) -> list[str]:
        """One name a source."""
        sources = (*self.simplex.names, *self.simplex.fixed, *self.others)
        return [f"{self.short}/{name}" for name in sources]

    def extremes(self) -> list[Raw]:
        """The uniform mixture; every other one has the same form."""
        return [self.encode(self.natural(None))]

    def grid(self, levels: int) -> list[Raw]:
        """The lattice of weights that are multiples of 1 / (levels - 1) of what is free."""
        simplex = self.simplex
        found: list[Raw] = []
        for shares in _lattice(len(simplex.names), levels - 1):
            parts = zip(simplex.names, shares, strict=True)
            weights = {n: simplex.floor + simplex.free * s / (levels - 1) for n, s in parts}
            u = simplex.encode(weights | dict(simplex.fixed))
            found.append(dict(zip(self._parameters(), u, strict=True)))
        return found

    def coordinates(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> list[float]:
        """The weights: two u far apart may be the same mixture.

        Where the caps leave none, those without caps: such a point is no job, but lies somewhere.
        """
        if self._parameters()[0] not in raw:
            weights = self.simplex.uniform()
        else:
            try:
                weights = self.simplex.decode(self._u(raw), self._caps(job))
            except ValueError:
                weights = self.simplex.decode(self._u(raw))
        return [weights[name] for name in self.simplex.names]

    def _u(self, raw: Mapping[str, Value]) -> list[float]:
        return [float(raw[name] or 0.0) for name in self._parameters()]

    def _parameters(self) -> list[str]:
        return [f"{self.raw}/{name}" for name in self.simplex.parameters]

    def _caps(self, job: Mapping[str, Any]) -> dict[str, float] | None:
        if self.max_epochs is None:
            return None
        samples, sources = job["optim"]["samples"], job["data"]["sources"]
        capped = (*self.simplex.names, *self.simplex.fixed)
        return {name: self.max_epochs * sources[name]["size"] / samples for name in capped}


def _lattice(parts: int, total: int) -> list[tuple[int, ...]]:
    """All ways to write `total` as an ordered sum of so many whole numbers from 0."""
    if parts == 1:
        return [(total,)]
    return [(n, *rest) for n in range(total + 1) for rest in _lattice(parts - 1, total - n)]
