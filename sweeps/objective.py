"""What a study optimises, read from a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.events import Scored

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class _Objective:
    """label: what people call it. error: standard error of a value, 0 where it is not known."""

    label: str
    direction: Direction
    value: Callable[[Scored], float]
    error: Callable[[Scored], float]


_OBJECTIVES: Mapping[str, _Objective] = {
    "mir": _Objective(
        "MIR",
        "minimize",
        lambda scored: float(scored.mir["mir"]),
        lambda scored: float(scored.mir["standard_error"] or 0.0),
    ),
    "validation-loss": _Objective(
        "validation loss",
        "minimize",
        lambda scored: scored.guard.validation_loss,
        lambda _scored: 0.0,
    ),
    "gap": _Objective(
        "gap", "maximize", lambda scored: scored.guard.gap, lambda scored: scored.guard.gap_error
    ),
}


def label(objective: str) -> str:
    """What people call it, as in 'MIR 2.91 +/- 0.04'."""
    return _OBJECTIVES[objective].label


def direction(objective: str) -> Direction:
    """Whether less or more of it is better."""
    return _OBJECTIVES[objective].direction


def turned(objective: str, value: float) -> float:
    """The objective's value so that less is better."""
    return -value if direction(objective) == "maximize" else value


def objective_value(objective: str, scored: Scored) -> float:
    """The objective at one score: log10 units for MIR, nats a token for loss and gap."""
    return _OBJECTIVES[objective].value(scored)


def objective_error(objective: str, scored: Scored) -> float:
    """Standard error of `objective_value`, 0 where the score does not carry one."""
    return _OBJECTIVES[objective].error(scored)
