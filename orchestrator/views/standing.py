"""Which trial is ahead, and how far the sweep has come. Pure functions of the sweep's state."""

from __future__ import annotations

import math

from jobs.events import Scored
from orchestrator.state import SweepView, TrialState, TrialView
from sweeps.objective import objective_value, turned
from sweeps.spec import SweepSpec

_ORDER = {
    TrialState.COMPLETE: 0,
    TrialState.RUNNING: 2,
    TrialState.PREEMPTED: 2,
    TrialState.PAUSED: 2,
    TrialState.PRUNED: 3,
    TrialState.FAILED: 4,
    TrialState.QUEUED: 5,
}
NAMES = {"mir": "MIR", "validation-loss": "validation loss", "gap": "right/wrong-picture gap"}


def objective_of(spec: SweepSpec, scored: Scored) -> float:
    """The score's value in the study's objective, turned so that lower is better."""
    objective = spec.study.objective
    return turned(objective, objective_value(objective, scored))


def ranked(view: SweepView) -> list[TrialView]:
    """Trials from best to worst: complete and feasible by the objective, then all others."""
    objective = view.spec.study.objective

    def key(trial: TrialView) -> tuple[int, float, int]:
        group = _ORDER[trial.state]
        if trial.state is TrialState.COMPLETE and not trial.feasible:
            group = 1
        value = trial.value(objective)
        known = math.inf if value is None else turned(objective, value)
        return group, known if math.isfinite(known) else math.inf, trial.number

    return sorted(view.trials.values(), key=key)


def counts(trial: TrialView) -> bool:
    """Whether the trial ended with a score that may win: complete, feasible and finite."""
    return (
        trial.state is TrialState.COMPLETE
        and bool(trial.feasible)
        and trial.mir is not None
        and math.isfinite(trial.mir)
    )


def best_trial(view: SweepView) -> TrialView | None:
    """The complete and feasible trial with the best objective, None before there is one."""
    return next((trial for trial in ranked(view) if counts(trial)), None)


def finished(view: SweepView) -> list[TrialView]:
    """Trials in a final state."""
    return [trial for trial in view.trials.values() if trial.state.final]


def elapsed(view: SweepView, now: float) -> float:
    """Seconds during which a controller ran; time on hold and between sittings is left out."""
    return view.elapsed if view.ended is not None else view.elapsed_at(now)


def seconds_left(view: SweepView, now: float) -> float | None:
    """Estimate from samples: what is still to be seen at the pace so far.

    A trial not yet started is expected to see as many samples as the finished ones did on
    average, a trial that a rule has paused no more. None until one trial has finished, because
    the first minutes are start-up.
    """
    done = finished(view)
    seen = sum(trial.samples for trial in view.trials.values())
    spent = elapsed(view, now)
    if not done or seen <= 0 or spent <= 0:
        return None
    usual = sum(trial.samples for trial in done) / len(done)
    started = [t for t in view.trials.values() if not t.state.final and t.samples > 0]
    fresh = max(0, view.spec.budget.trials - len(done) - len(started))
    started = [trial for trial in started if not trial.frozen]
    ahead = fresh * usual + sum(trial.budget - trial.samples for trial in started)
    left = ahead * spent / seen
    if view.spec.budget.hours is not None:
        left = min(left, view.spec.budget.hours * 3600 - spent)
    return max(0.0, left)
