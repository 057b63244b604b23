"""Carries out the study's retention while the sweep runs, in a thread of its own.

Removing big files may take long on a slow disk, and no decision waits for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.hindsight import in_hindsight
from orchestrator.retention import all_stored, over_quota, removals, remove, stored_of
from orchestrator.state import SweepView, TrialState
from orchestrator.trackers.background import Background, TryLaterError


class Keeper:
    """Holds the quota. view: gives the present state; sizes are measured where a trial changed.

    full: what to tell people where nothing more may go, None where there is space.
    failing_since: when a removal failed first since one succeeded, by the monotonic clock; inf
    where none has, also while one takes its time.
    """

    def __init__(self, trials: Path, view: Callable[[], SweepView]) -> None:
        self._trials, self._view = trials, view
        self._sizes: dict[int, int] = {}
        self._background: Background[None] = Background(lambda _: None, "retention")
        self.full: str | None = None
        self.failing_since = math.inf

    def begin(self) -> None:
        """Carry out what an earlier controller left undone."""
        self._background.do(lambda: self._guarded(None))

    def saved_or_ended(self, number: int) -> None:
        """A trial has another checkpoint, or has ended."""
        self._background.do(lambda: self._guarded(number))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is carried out; False if it took too long."""
        return self._background.flush(timeout_s)

    def close(self) -> None:
        """End the thread; the next controller does what is left."""
        self._background.close(0.0)

    def _guarded(self, number: int | None) -> None:
        try:
            self._tidy(number)
        except OSError as error:
            self.failing_since = min(self.failing_since, time.monotonic())
            raise TryLaterError(f"checkpoints cannot be removed ({error})") from error
        self.failing_since = math.inf

    def _tidy(self, number: int | None) -> None:
        view = self._view()
        if number is not None:
            found = stored_of(self._trials, number)
            self._sizes[number] = sum(stored.size for stored in found)
        if number is None or self._ask_all(view, number):
            # Others may have saved more since they were measured.
            found, view = all_stored(self._trials), in_hindsight(view)
            self._sizes.clear()
            for stored in found:
                self._sizes[stored.trial] = self._sizes.get(stored.trial, 0) + stored.size
        for removal in removals(view, found):
            remove(removal.stored)
            self.failing_since = math.inf
            self._sizes[removal.stored.trial] -= removal.stored.size
        self._sizes = {trial: size for trial, size in self._sizes.items() if size}
        self.full = over_quota(view.spec, sum(self._sizes.values()))

    def _ask_all(self, view: SweepView, number: int) -> bool:
        """Whether other trials' checkpoints may have to go because of this one."""
        if over_quota(view.spec, sum(self._sizes.values())) is not None:
            return True
        ended = number in view.trials and view.trials[number].state is TrialState.COMPLETE
        return ended and view.spec.retention.keep_best is not None
