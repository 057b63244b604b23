"""What a request changes in a sweep that runs; pure but for what it tells the desk."""

from __future__ import annotations

from orchestrator.control import Request
from orchestrator.desk import Desk
from orchestrator.endings import Leaving
from orchestrator.state import SweepView, TrialState, TrialView
from sweeps.spec import BudgetSpec, SweepSpec

STOPPED = Leaving(reason="stopped by `mirsweep stop`; run the same command to go on")
DRAINED = Leaving(reason="drained by `mirsweep stop --drain`; run the same command to go on")
PAUSED = Leaving(reason="paused; `mirsweep resume` goes on")


def extended(spec: SweepSpec, request: Request) -> SweepSpec:
    """The recipe with a larger budget; a limit that it does not have stays away."""
    budget = spec.budget.model_dump()
    for name, limit in budget.items():
        if limit is not None:
            budget[name] += getattr(request, name)
    return spec.model_copy(update={"budget": BudgetSpec.model_validate(budget)})


def failed_points(view: SweepView) -> list[TrialView]:
    """Failed trials whose point no later trial has tried again."""
    trials = [trial for _, trial in sorted(view.trials.items())]
    return [
        trial
        for i, trial in enumerate(trials)
        if trial.state is TrialState.FAILED
        and trial.params
        and all(trial.params != later.params for later in trials[i + 1 :])
    ]


def enlarge(desk: Desk, request: Request, name: str) -> None:
    """Note the larger budget in the log; from now on it counts. name: of the request."""
    desk.spec = extended(desk.spec, request)
    desk.journal.extended(desk.spec.budget, name)


def add_points(desk: Desk, points: list[dict[str, float | int | str]], name: str) -> None:
    """Try these points next, beyond the budget's trials. name: of the request."""
    if points:
        enlarge(desk, Request(verb="extend", trials=len(points)), name)
    for point in points:
        desk.clerk.enqueue(point)
