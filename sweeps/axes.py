"""What one entry of the search space does: draw raw parameters, set a field, name itself.

Raw parameters are what Optuna stores (a mixture's u); shown parameters are what people see (the
mixture's weights). Each axis translates both ways. Names: raw 'model.moca/on/init_std', shown
'moca/init_std'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Value = bool | int | float | str | None
Raw = dict[str, Value]
Shown = dict[str, float | int | str]
Path = tuple[str, ...]


class Suggester(Protocol):
    """The part of an Optuna trial that draws values."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw a float between low and high."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Draw an integer between low and high."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        """Draw one of the choices."""
        ...


class Axis(Protocol):
    """One entry of the space. path: the job's field; raw, short: its names (module docstring)."""

    @property
    def path(self) -> Path:
        """Fields from the job down, relative to the enclosing branch inside one."""
        ...

    def draw(self, trial: Suggester) -> Raw:
        """Ask for this axis's raw parameters."""
        ...

    def setting(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> Any:
        """The field's value; `job` is the job as JSON with all axes but mixtures set."""
        ...

    def shown(self, raw: Mapping[str, Value], setting: Any) -> Shown:
        """The parameters that people see."""
        ...

    def encode(self, shown: Mapping[str, Any]) -> Raw:
        """Raw parameters for what people see; those not given are left out, to be drawn."""
        ...

    def natural(self, setting: Any) -> dict[str, Any]:
        """Shown parameters nearest to a plain setting of the field, to start from."""
        ...

    def names(self) -> list[str]:
        """All names that `shown` may give."""
        ...

    def extremes(self) -> list[Raw]:
        """Raw parameters at the edges of the axis, to validate every kind of job beforehand."""
        ...

    def grid(self, levels: int) -> list[Raw]:
        """So many places along the axis, its ends among them; every choice, every branch."""
        ...

    def coordinates(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> list[float]:
        """Where the point lies, for distances: always as many numbers, a mixture's its weights.

        Every axis has about unit length; what is not drawn lies in the middle. `job`: as JSON.
        """
        ...


def same_point(a: Raw, b: Raw) -> bool:
    """Whether two points are one, but for rounding: a mixture's u and weights to and fro."""
    return a.keys() == b.keys() and all(_near(a[name], b[name]) for name in a)


def _near(a: Value, b: Value) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5)
    return a == b


def plain(value: Any) -> float | int | str:
    """As people see it: None and booleans as text."""
    if isinstance(value, float | int | str) and not isinstance(value, bool):
        return value
    return str(value).lower()


def put(tree: dict[str, Any], path: Path, value: Any) -> None:
    """Set the field at `path`, making the dictionaries on the way."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def get(tree: Any, path: Path) -> Any:
    """The field at `path`, None where there is none."""
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def product(*parts: list[Raw]) -> list[Raw]:
    """Every combination of one point of each part, the last part's varying fastest."""
    found: list[Raw] = [{}]
    for part in parts:
        found = [before | point for before in found for point in part]
    return found
