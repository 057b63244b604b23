"""Trials that no other beats in every objective: pure functions of the sweep's state."""

from __future__ import annotations

from pathlib import Path

from mir.errors import MirsweepError
from orchestrator.budget import devices
from orchestrator.earlier import earlier
from orchestrator.state import SweepView, TrialView
from orchestrator.views.standing import counts, objective_of
from sweeps.objective import direction, objective_value
from sweeps.pareto import front
from sweeps.spec import SweepSpec
from sweeps.transfer import transfer


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


def transfers(view: SweepView) -> list[str]:
    """How each study that this one was seeded from ranks the variants that both have finished.

    One sentence each, also where a study cannot be read any more.
    """
    spec = view.spec.study
    if not spec.warm_start:
        return []
    mine = [
        (trial.params, objective_of(view.spec, trial.scores[-1]))
        for _, trial in sorted(view.trials.items())
        if counts(trial)
    ]
    found = []
    for study in spec.warm_start:
        try:
            theirs = earlier(study, spec.objective)
        except MirsweepError as error:
            found.append(str(error))
        else:
            found.append(str(transfer(Path(study).name, theirs, mine)))
    return found
