"""What Optuna's storage holds of a study, as samplers want to be told it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from sweeps.told import State, Told

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ERROR, ALSO, PAUSED = "mirsweep:error", "mirsweep:also", "mirsweep:paused"
_STATES: Mapping[str, State] = {
    "COMPLETE": "complete",
    "PRUNED": "stopped",
    "FAIL": "failed",
    "RUNNING": "open",
    "WAITING": "open",
}


def history(trials: Sequence[FrozenTrial], sign: float) -> list[Told]:
    """All trials that have a point. sign: -1 where more of the objective is better.

    A stopped trial counts with its last value and what complete trials gained, on average, after
    the same samples, so that early values are not taken for late ones. A paused one, which Optuna
    takes for running, counts as stopped until it goes on.
    """
    gains = _gains(trials)
    return [_told(trial, sign, gains) for trial in trials if trial.params]


def _gains(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for trial in trials:
        if trial.state.name == "COMPLETE" and trial.value is not None:
            for samples, value in trial.intermediate_values.items():
                found.setdefault(samples, []).append(trial.value - value)
    return {samples: fmean(values) for samples, values in found.items()}


def _told(trial: FrozenTrial, sign: float, gains: Mapping[int, float]) -> Told:
    value = trial.value
    if value is None and trial.intermediate_values:
        last = max(trial.intermediate_values)
        value = trial.intermediate_values[last] + gains.get(last, 0.0)
    waits = trial.state.name == "RUNNING" and trial.user_attrs.get(PAUSED, False)
    also = [float(other) for other in trial.user_attrs.get(ALSO, ())]
    return Told(
        number=trial.number,
        raw=dict(trial.params),
        state="stopped" if waits else _STATES[trial.state.name],
        values=() if value is None else (sign * value, *also),
        errors=() if value is None else (float(trial.user_attrs.get(ERROR, 0.0)),),
        violations=dict(trial.constraints),
    )
