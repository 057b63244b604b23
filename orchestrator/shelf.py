"""Ended trials on the shelf: a few numbers in memory, the rest read again from the log on demand.

A controller's memory thus hardly grows with the trials that have ended, whatever their scores
hold. Whoever reads a view cannot tell the difference, except by the time that a first look takes.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

from orchestrator.eventlog import Record, records_at
from orchestrator.fold import fold_trial
from orchestrator.state import SweepView, TrialView

IN_HAND = 64
"""How many ended trials stay whole in memory, those looked at last."""
_ON_DISK = frozenset((
    "job", "params", "raw", "steps", "scores", "counted", "skips", "violations", "checkpoint",
    "mark",
))  # fmt: skip
_IN_MEMORY = (
    "number", "state", "reason", "attempt", "samples", "feasible", "violation", "started", "ended",
    "verdict", "verdict_reason", "verdict_samples", "objective", "restarts", "seconds", "launched",
    "left", "redone", "workers", "waiting", "resumed", "compared_from",
)  # fmt: skip


class Shelf:
    """Knows where in the log each trial's records are."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._places: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        self._in_hand: OrderedDict[int, TrialView] = OrderedDict()
        # Screens and the keeper of checkpoints look at views in threads of their own.
        self._lock = threading.Lock()

    def keep(self, view: SweepView, record: Record) -> None:
        """Note where a record is; a trial that it ended goes on the shelf.

        view: after the record; its dictionary of trials is changed.
        """
        if "trial" not in record.data:
            return
        number = record.data["trial"]
        with self._lock:
            self._places[number].append(record.at)
            self._in_hand.pop(number, None)
            if view.trials[number].state.final:
                self._hold(view.trials[number])
                view.trials[number] = StoredTrial(view.trials[number], self)

    def whole(self, number: int) -> TrialView:
        """All of a trial, folded again from its records."""
        with self._lock:
            if number in self._in_hand:
                self._in_hand.move_to_end(number)
                return self._in_hand[number]
            found = fold_trial(records_at(self._log, self._places[number]))
            self._hold(found)
            return found

    def _hold(self, trial: TrialView) -> None:
        self._in_hand[trial.number] = trial
        if len(self._in_hand) > IN_HAND:
            self._in_hand.popitem(last=False)


class StoredTrial(TrialView):
    """An ended trial on the shelf. Equal to the whole one."""

    def __init__(self, trial: TrialView, shelf: Shelf) -> None:
        kept = {name: getattr(trial, name) for name in _IN_MEMORY}
        vars(self).update(kept, _shelf=shelf, _mir=trial.mir)

    def __getattribute__(self, name: str) -> Any:
        if name in _ON_DISK:
            return getattr(self.whole(), name)
        return super().__getattribute__(name)

    @property
    def mir(self) -> float | None:
        """The newest MIR, whether feasible or not."""
        found: float | None = vars(self)["_mir"]
        return found

    def value(self, objective: str) -> float | None:
        """The newest score's value of an objective; read from the log once."""
        known = vars(self)
        if "_value" not in known or known["_value"][0] != objective:
            known["_value"] = (objective, self.whole().value(objective))
        found: float | None = known["_value"][1]
        return found

    def losses(self) -> dict[int, float]:
        """Validation loss by samples, of the scores that count; read from the log once."""
        known = vars(self)
        if "_losses" not in known:
            known["_losses"] = self.whole().losses()
        found: dict[int, float] = known["_losses"]
        return found

    def outdone(self, violation: str) -> TrialView:
        """As it stands once others have shown that its last score does not count; made once."""
        known = vars(self)
        made: StoredTrial | None = known.get("_outdone")
        if made is None or made.violation != violation:
            made = object.__new__(StoredTrial)
            vars(made).update(known, feasible=False, violation=violation, _outdone=None)
            vars(made).pop("_losses", None)
            known["_outdone"] = made
        return made

    def whole(self) -> TrialView:
        """The trial with everything in memory."""
        shelf: Shelf = vars(self)["_shelf"]
        found = shelf.whole(self.number)
        return found if found.feasible == self.feasible else found.outdone(self.violation)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrialView) and self.whole() == other.whole()

    __hash__ = None  # type: ignore[assignment]
