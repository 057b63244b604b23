"""A search space as a unit cube: one number between 0 and 1 for every parameter that any point has.

Points are drawn in the cube by samplers of our own and turned into raw parameters; parameters of
branches that a point does not take are left out of its raw parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeps.axes import Raw, Value
from sweeps.draws import Stored
from sweeps.space import Space


@dataclass(frozen=True)
class Parameter:
    """One raw parameter's domain: a range, or choices."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    choices: tuple[Value, ...] = ()

    def value(self, unit: float) -> Value:
        """The value at a place between 0 and 1; integers and choices have equal shares."""
        if self.choices:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        low, high = self._edges
        place = low + unit * (high - low)
        found = math.exp(place) if self.log else place
        if self.integer:
            return min(max(round(found), int(self.low)), int(self.high))
        return min(max(found, self.low), self.high)

    def unit(self, value: Value) -> float:
        """A place whose value this is: the middle of its share."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high = self._edges
        assert isinstance(value, int | float)
        place = ((math.log(value) if self.log else value) - low) / (high - low)
        return min(max(place, 0.0), 1.0)

    @property
    def _edges(self) -> tuple[float, float]:
        margin = 0.5 if self.integer else 0.0
        low, high = self.low - margin, self.high + margin
        return (math.log(low), math.log(high)) if self.log else (low, high)


@dataclass(frozen=True)
class Cube:
    """The unit cube of a space."""

    space: Space

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Every raw parameter by name, those of all branches included, in the space's order."""
        notes = _Notes()
        for axis in self.space.axes:
            for edge in axis.extremes():
                notes.values = edge
                axis.draw(notes)
        return notes.found

    @property
    def dimensions(self) -> int:
        """How many numbers a point has."""
        return len(self.parameters)

    def values(self, units: Sequence[float]) -> dict[str, Value]:
        """A value for every parameter, those of branches that the point does not take included."""
        return {
            name: parameter.value(unit)
            for (name, parameter), unit in zip(self.parameters.items(), units, strict=True)
        }

    def raw(self, units: Sequence[float]) -> Raw:
        """The raw parameters of a point."""
        return self.taken(self.values(units))

    def taken(self, values: Mapping[str, Value]) -> Raw:
        """Of a value for every parameter, those that a point with them has."""
        return self.space.draw(Stored(values))

    def units(self, raw: Mapping[str, Value]) -> list[float]:
        """A point with these raw parameters; what they leave out lies in the middle."""
        return [
            parameter.unit(raw[name]) if name in raw else 0.5
            for name, parameter in self.parameters.items()
        ]


class _Notes:
    """A suggester that notes each parameter's domain and gives the values of an edge."""

    def __init__(self) -> None:
        self.found: dict[str, Parameter] = {}
        self.values: Raw = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.found[name] = Parameter(low, high, log)
        return float(self.values[name] or 0.0)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.found[name] = Parameter(low, high, log, integer=True)
        return int(self.values[name] or 0)

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        self.found[name] = Parameter(choices=tuple(choices))
        return self.values[name]
