"""Axes of one plain value: a number in a range, or one of several choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mir.errors import ConfigError
from sweeps.axes import Path, Raw, Shown, Suggester, Value, plain
from sweeps.spec import Range


@dataclass(frozen=True)
class RangeAxis:
    """A number."""

    path: Path
    raw: str
    short: str
    spec: Range

    def draw(self, trial: Suggester) -> Raw:
        """Ask for the number."""
        spec = self.spec
        if spec.integer:
            return {
                self.raw: trial.suggest_int(self.raw, int(spec.low), int(spec.high), log=spec.log)
            }
        return {self.raw: trial.suggest_float(self.raw, spec.low, spec.high, log=spec.log)}

    def setting(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The number itself."""
        return raw[self.raw]

    def shown(self, raw: Mapping[str, Value], setting: Any) -> Shown:  # noqa: ARG002
        """The number by its short name."""
        return {self.short: setting}

    def encode(self, shown: Mapping[str, Any]) -> Raw:
        """The number, if it is given and within the range."""
        if self.short not in shown:
            return {}
        value = shown[self.short]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{self.short}: {value!r} is not a number.")
        if not self.spec.low <= value <= self.spec.high:
            raise ConfigError(
                f"{self.short}: {value:g} is outside {self.spec.low:g} to {self.spec.high:g}."
            )
        return {self.raw: int(value) if self.spec.integer else float(value)}

    def natural(self, setting: Any) -> dict[str, Any]:
        """The number, moved into the range; nothing if the field has none."""
        if isinstance(setting, bool) or not isinstance(setting, int | float):
            return {}
        return {self.short: min(max(setting, self.spec.low), self.spec.high)}

    def names(self) -> list[str]:
        """The short name."""
        return [self.short]

    def extremes(self) -> list[Raw]:
        """Low and high."""
        kind = int if self.spec.integer else float
        return [{self.raw: kind(self.spec.low)}, {self.raw: kind(self.spec.high)}]

    def grid(self, levels: int) -> list[Raw]:
        """Evenly spread from low to high, or over its logarithm; integers without repeats."""
        low, high = self.spec.low, self.spec.high
        if self.spec.log:
            low, high = math.log(low), math.log(high)
        places = [low + (high - low) * i / (levels - 1) for i in range(levels)]
        values = [math.exp(place) if self.spec.log else place for place in places]
        values[0], values[-1] = self.spec.low, self.spec.high
        if self.spec.integer:
            return [{self.raw: value} for value in dict.fromkeys(round(v) for v in values)]
        return [{self.raw: value} for value in values]

    def coordinates(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> list[float]:  # noqa: ARG002
        """The part of the range, or of its logarithm, that lies below."""
        value = raw.get(self.raw)
        return [0.5 if value is None else unit_of(float(value), self.spec)]


def unit_of(value: float, spec: Range) -> float:
    """Where a number lies in its range, from 0 to 1, by its logarithm where the range says so."""
    low, high = (math.log(spec.low), math.log(spec.high)) if spec.log else (spec.low, spec.high)
    return ((math.log(value) if spec.log else value) - low) / (high - low)


@dataclass(frozen=True)
class ChoiceAxis:
    """One of several values."""

    path: Path
    raw: str
    short: str
    choices: tuple[Value, ...]

    def draw(self, trial: Suggester) -> Raw:
        """Ask for one of the choices."""
        return {self.raw: trial.suggest_categorical(self.raw, self.choices)}

    def setting(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The choice itself."""
        return raw[self.raw]

    def shown(self, raw: Mapping[str, Value], setting: Any) -> Shown:  # noqa: ARG002
        """The choice by its short name."""
        return {self.short: plain(setting)}

    def encode(self, shown: Mapping[str, Any]) -> Raw:
        """The choice, if it is given and known, as itself or as people see it."""
        if self.short not in shown:
            return {}
        for choice in self.choices:
            if shown[self.short] in (choice, plain(choice)):
                return {self.raw: choice}
        known = ", ".join(str(plain(choice)) for choice in self.choices)
        raise ConfigError(f"{self.short}: no such choice {shown[self.short]!r}. Known: {known}.")

    def natural(self, setting: Any) -> dict[str, Any]:
        """The setting if it is among the choices."""
        return {self.short: setting} if setting in self.choices else {}

    def names(self) -> list[str]:
        """The short name."""
        return [self.short]

    def extremes(self) -> list[Raw]:
        """Every choice."""
        return [{self.raw: choice} for choice in self.choices]

    def grid(self, levels: int) -> list[Raw]:  # noqa: ARG002
        """Every choice."""
        return self.extremes()

    def coordinates(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> list[float]:  # noqa: ARG002
        """One number a choice, so that any two lie at distance 1."""
        there = raw.get(self.raw, _ABSENT)
        return one_hot([choice == there for choice in self.choices])


_ABSENT = object()


def one_hot(chosen: Sequence[bool]) -> list[float]:
    """Corners of a simplex of edge 1, or its middle where nothing is chosen."""
    edge = math.sqrt(0.5)
    if not any(chosen):
        return [edge / len(chosen)] * len(chosen)
    return [edge * value for value in chosen]
