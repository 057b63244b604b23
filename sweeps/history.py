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


class History:
    """The trials of one study as told so far. What has ended is read once: it does not change.

    A stopped trial counts with its last value and what complete trials gained, on average, after
    the same samples, so that early values are not taken for late ones. A paused one, which Optuna
    takes for running, counts as stopped until it goes on.
    """

    def __init__(self, sign: float) -> None:
        """sign: -1 where more of the objective is better."""
        self._sign = sign
        self._told: dict[int, Told] = {}
        self._moving: list[int] = []  # open, or ended with a value that moves with the gains
        self._gained: dict[int, list[float]] = {}

    def told(self, trials: Sequence[FrozenTrial]) -> list[Told]:
        """All trials that have a point. trials: all of the study, by number."""
        read = [*self._moving, *range(len(self._told), len(trials))]
        for number in read:
            if trials[number].state.name == "COMPLETE":
                self._gain(trials[number])
        gains = {samples: fmean(gained) for samples, gained in self._gained.items()}
        for number in read:
            self._told[number] = _told(trials[number], self._sign, gains)
        self._moving = [number for number in read if _moves(trials[number])]
        return [told for told in self._told.values() if told.raw]

    def _gain(self, trial: FrozenTrial) -> None:
        if trial.value is not None:
            for samples, value in trial.intermediate_values.items():
                self._gained.setdefault(samples, []).append(trial.value - value)


def _moves(trial: FrozenTrial) -> bool:
    return not trial.state.is_finished() or (
        trial.value is None and bool(trial.intermediate_values)
    )


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
