"""What a request changes in a sweep that runs; pure but for what it tells the desk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mir.errors import ConfigError
from orchestrator.control import Request
from orchestrator.endings import Leaving
from orchestrator.state import SweepView, TrialState
from sweeps.axes import Raw, Shown, same_point
from sweeps.space import Space, space_of
from sweeps.spec import BudgetSpec, SweepSpec

if TYPE_CHECKING:
    from orchestrator.desk import Desk

logger = logging.getLogger(__name__)

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


def failed_points(view: SweepView) -> list[Shown]:
    """Points of failed trials that no later trial has tried again, and none is about to."""
    trials = [trial for _, trial in sorted(view.trials.items())]
    space, points = space_of(view.spec), [*(trial.raw for trial in trials), *view.queue]
    return [
        trial.params
        for i, trial in enumerate(trials)
        if trial.state is TrialState.FAILED
        and trial.params
        and not _among(points[i + 1 :], trial.params, space)
    ]


def _among(points: Sequence[Raw], shown: Shown, space: Space) -> bool:
    """Whether a point is one of these; of one outside the space `add_points` will tell."""
    try:
        raw = space.encode(shown)
    except ConfigError:
        return False
    return any(same_point(raw, point) for point in points)


def enlarge(desk: Desk, request: Request, name: str, points: Sequence[Raw] = ()) -> None:
    """Note the larger budget in the log, with the points that it is for; from now on it counts.

    name: of the request.
    """
    desk.spec = extended(desk.spec, request)
    desk.journal.extended(desk.spec.budget, name, points)
    if points:
        desk.exhausted = ""


def add_points(desk: Desk, points: Sequence[Shown], name: str) -> None:
    """Try these points next, beyond the budget's trials; one outside the space is left out.

    name: of the request.
    """
    space, found = space_of(desk.spec), []
    for point in points:
        try:
            found.append(space.encode(point))
        except ConfigError as error:
            logger.warning("a point was refused: %s", error)
    if found:
        enlarge(desk, Request(verb="extend", trials=len(found)), name, found)
