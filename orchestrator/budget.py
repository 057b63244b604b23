"""What a sweep may still spend: pure questions to its view."""

from __future__ import annotations

from orchestrator.state import SweepView


def spent(view: SweepView, now: float) -> str | None:
    """Why every job must stop now, None while there is budget left.

    now: seconds since the epoch. Only time in which a controller ran counts.
    """
    hours = view.spec.budget.hours
    if hours is None:
        return None
    elapsed = view.seconds + max(0.0, now - view.session)
    if elapsed < hours * 3600:
        return None
    return f"the budget of {hours:g} h is spent"


def trials_left(view: SweepView) -> int:
    """How many new trials may be asked for; every trial counts, however it ended."""
    return max(0, view.spec.budget.trials - len(view.trials))
