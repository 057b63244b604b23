"""The learning rate as a pure function of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Callable

from jobs.spec import OptimSpec

_DECAY: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,  # noqa: ARG005 - one signature for all
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def rate_factor(step: int, optim: OptimSpec) -> float:
    """Share of the full learning rate at `step` (0-based), above 0 and at most 1.

    Rises linearly over the first `warmup_ratio` of the steps, then follows the schedule, which
    reaches 0 one step after the last.
    """
    warmup = math.ceil(optim.warmup_ratio * optim.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, optim.steps - warmup)
    return _DECAY[optim.schedule](progress)
