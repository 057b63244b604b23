"""Trials that no other beats in every objective: pure functions of the sweep's state."""

from __future__ import annotations

from orchestrator.budget import devices
from orchestrator.state import SweepView, TrialView
from orchestrator.views.standing import counts, objective_of
from sweeps.objective import objective_value, turned
from sweeps.pareto import front
from sweeps.spec import SweepSpec


def also(trial: TrialView, spec: SweepSpec) -> list[float]:
    """The objectives beside the first at a trial's last score, less is better.

    Device-hours are those of a full run at the trial's pace, so that stopping makes nothing cheap.
    """
    return [_value(name, trial, spec) for name in spec.study.also]


def _value(name: str, trial: TrialView, spec: SweepSpec) -> float:
    if name == "device-hours":
        done = trial.samples + trial.redone
        pace = trial.seconds / done if done else 0.0
        return trial.budget * pace * devices(spec.resources, trial.workers) / 3600
    return turned(name, objective_value(name, trial.scores[-1]))


def pareto(view: SweepView) -> list[int]:
    """Numbers of the trials on the front, among those that may win; empty with one objective."""
    spec = view.spec
    if not spec.study.also:
        return []
    trials = [trial for _, trial in sorted(view.trials.items()) if counts(trial)]
    points = [(objective_of(spec, trial.scores[-1]), *also(trial, spec)) for trial in trials]
    return [trials[place].number for place in front(points)]
