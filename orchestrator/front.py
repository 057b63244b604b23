"""Trials that no other beats in every objective: pure functions of the sweep's state."""

from __future__ import annotations

from pathlib import Path

from orchestrator.budget import devices
from orchestrator.state import SweepView, TrialView
from orchestrator.views.standing import counts
from sweeps.objective import direction, objective_value
from sweeps.pareto import front
from sweeps.spec import SweepSpec
from sweeps.transfer import Transfer, transfer


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
    value = objective_value(name, trial.scores[-1])
    return -value if direction(name) == "maximize" else value


def pareto(view: SweepView) -> list[int]:
    """Numbers of the trials on the front, among those that may win; empty with one objective."""
    spec = view.spec
    if not spec.study.also:
        return []
    trials = [trial for _, trial in sorted(view.trials.items()) if counts(trial)]
    sign = -1.0 if direction(spec.study.objective) == "maximize" else 1.0
    first = [sign * objective_value(spec.study.objective, trial.scores[-1]) for trial in trials]
    points = [(value, *also(trial, spec)) for value, trial in zip(first, trials, strict=True)]
    return [trials[place].number for place in front(points)]


def transfers(view: SweepView) -> list[Transfer]:
    """How each study that this one was seeded from ranks the variants that both have finished."""
    spec = view.spec.study
    if not spec.warm_start:
        return []
    sign = -1.0 if direction(spec.objective) == "maximize" else 1.0
    mine = [
        (trial.params, sign * objective_value(spec.objective, trial.scores[-1]))
        for _, trial in sorted(view.trials.items())
        if counts(trial)
    ]
    return [transfer(study, mine) for study in spec.warm_start if Path(study).is_dir()]
