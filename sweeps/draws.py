"""Drawing a point from given values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.axes import Value


class Stored:
    """Gives what was drawn before, or chosen. Raises KeyError for what was not."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:  # noqa: ARG002
        """The stored float."""
        return float(self._params[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:  # noqa: ARG002
        """The stored integer."""
        return int(self._params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:  # noqa: ARG002
        """The stored choice."""
        return self._params[name]
