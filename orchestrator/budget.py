"""What a sweep may still spend: pure questions to its view."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.state import SweepView, TrialView
from sweeps.spec import ResourceSpec


def spent(view: SweepView, now: float, running: Iterable[TrialView] = ()) -> str | None:
    """Why every job must stop now, None while there is budget left.

    now: seconds since the epoch. Only time in which a controller ran and was not held counts.
    running: the trials that use devices at the moment.
    """
    budget = view.spec.budget
    if budget.hours is not None and view.elapsed_at(now) >= budget.hours * 3600:
        return f"the budget of {budget.hours:g} h is spent"
    if budget.samples is not None and view.samples >= budget.samples:
        return f"the budget of {budget.samples:,} samples is spent"
    if budget.gpu_hours is None and budget.cost is None:
        return None
    resources = view.spec.resources
    used = seconds_used(view, running, now) * devices(resources) / 3600
    if budget.gpu_hours is not None and used >= budget.gpu_hours:
        return f"the budget of {budget.gpu_hours:g} {unit(resources)} is spent"
    price = resources.price_per_hour or 0.0
    if budget.cost is not None and used * price >= budget.cost:
        return f"the budget of {budget.cost:g} at {price:g} a device-hour is spent"
    return None


def trials_left(view: SweepView) -> int:
    """How many new trials may be asked for; every trial counts, however it ended."""
    return max(0, view.spec.budget.trials - len(view.trials))


def devices(resources: ResourceSpec, workers: int | None = None) -> float:
    """What one job occupies: GPUs, or cores if it uses none. workers: None for the recipe's."""
    each = resources.gpus_per_worker or resources.cpus_per_worker
    return resources.of(workers).workers * each


def unit(resources: ResourceSpec) -> str:
    """What device-hours are called."""
    return "GPU-hours" if resources.gpus_per_worker else "core-hours"


def seconds_used(view: SweepView, running: Iterable[TrialView], now: float) -> float:
    """Seconds of jobs over all attempts, those still running up to `now`.

    As of jobs on the recipe's number of ranks: one on twice as many counts twice.
    """
    share = view.spec.resources.share
    open_ended = sum(
        max(0.0, now - trial.launched) * share(trial.workers)
        for trial in running
        if trial.launched is not None
    )
    return view.busy + open_ended
