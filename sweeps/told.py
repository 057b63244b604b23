"""What a sampler may know of a trial: where it lies and what was told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from sweeps.axes import Raw

State = Literal["open", "complete", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """One trial as told so far.

    values: the objectives at its last feasible score, less is better, empty where there is none;
    errors: their standard errors. violations: of the guard's constraints, above 0 where broken.
    """

    number: int
    raw: Raw
    state: State
    values: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    violations: Mapping[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it was measured: complete or stopped."""
        return self.state in ("complete", "stopped")

    @property
    def feasible(self) -> bool:
        """Whether it may be good: it ended, and breaks nothing."""
        return self.ended and self.violation == 0

    @cached_property  # sorted by it, of thousands
    def violation(self) -> float:
        """The sum of what is broken."""
        return sum(max(0.0, violation) for violation in self.violations.values())
