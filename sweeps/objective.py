"""What a study optimises, read from a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from jobs.events import Scored

Direction = Literal["minimize", "maximize"]

_OBJECTIVES: Mapping[str, tuple[Direction, Callable[[Scored], float]]] = {
    "mir": ("minimize", lambda scored: float(scored.mir["mir"])),
    "validation-loss": ("minimize", lambda scored: scored.guard.validation_loss),
    "gap": ("maximize", lambda scored: scored.guard.gap),
}


def direction(objective: str) -> Direction:
    """Whether less or more of it is better."""
    return _OBJECTIVES[objective][0]


def objective_value(objective: str, scored: Scored) -> float:
    """The objective at one score: log10 units for MIR, nats a token for loss and gap."""
    return _OBJECTIVES[objective][1](scored)
