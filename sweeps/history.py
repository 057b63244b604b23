"""What Optuna's storage holds of a study, as samplers want to be told it."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from sweeps.told import State, Told

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ERROR, ALSO, PAUSED = "mirsweep:error", "mirsweep:also", "mirsweep:paused"
ENOUGH = 32
"""Complete trials that tell what is gained: their mean is then known to a sixth of their spread."""
_STATES: Mapping[str, State] = {
    "COMPLETE": "complete",
    "PRUNED": "stopped",
    "FAIL": "failed",
    "RUNNING": "open",
    "WAITING": "open",
}


class History:
    """The trials of one study as told so far. What has ended is read again for its estimate alone.

    A stopped trial counts with its last value and what complete trials gained, on average, after
    the same samples, so that early values are not taken for late ones. The average is that of the
    first `ENOUGH` complete trials by number: it settles, and all stopped trials with it. A paused
    trial, which Optuna takes for running, counts as stopped until it goes on.
    """

    def __init__(self, sign: float) -> None:
        """sign: -1 where more of the objective is better."""
        self._sign = sign
        self._told: dict[int, Told] = {}
        self._open: list[int] = []
        self._gained: dict[int, list[tuple[int, float]]] = {}  # by samples: number and gain
        self._gains: dict[int, float] = {}
        self._stopped: dict[int, list[int]] = {}  # by the samples of their last value

    def told(self, trials: Sequence[FrozenTrial]) -> list[Told]:
        """All trials that have a point. trials: all of the study, by number."""
        read = [*self._open, *range(len(self._told), len(trials))]
        moved = self._gain(trials[n] for n in read if trials[n].state.name == "COMPLETE")
        for number in (*read, *(n for samples in moved for n in self._stopped.get(samples, ()))):
            self._told[number] = _told(trials[number], self._sign, self._gains)
        self._open = [number for number in read if not trials[number].state.is_finished()]
        for number in read:
            if trials[number].state.name in ("PRUNED", "FAIL"):
                last = max(trials[number].intermediate_values, default=0)
                self._stopped.setdefault(last, []).append(number)
        return [told for told in self._told.values() if told.raw]

    def _gain(self, completed: Iterable[FrozenTrial]) -> set[int]:
        """Hear further complete trials; returns after which samples the gain has moved."""
        moved = set()
        for trial in completed:
            final = trial.values[0]
            for samples, value in trial.intermediate_values.items():
                found = self._gained.setdefault(samples, [])
                insort(found, (trial.number, final - value))
                if len(found) <= ENOUGH or found.pop()[0] != trial.number:
                    moved.add(samples)
        for samples in moved:
            self._gains[samples] = fmean(gain for _, gain in self._gained[samples])
        return moved


def _told(trial: FrozenTrial, sign: float, gains: Mapping[int, float]) -> Told:
    # Of a stopped trial Optuna makes the last value the final one.
    value = trial.value if trial.state.name == "COMPLETE" else None
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
