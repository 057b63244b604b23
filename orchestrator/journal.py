"""The event log together with the view that it folds to: what the controller writes and reads.

Each method is one record; when it returns, the record is on disk and `view` knows it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.events import Event, Scored, Step
from orchestrator.code_version import code_version
from orchestrator.eventlog import LOG_NAME, EventLog, Record
from orchestrator.fold import advance
from orchestrator.shelf import Shelf
from orchestrator.state import SweepView, TrialState, TrialView
from sweeps.course import Mark
from sweeps.decision import Decision
from sweeps.secrets import recorded
from sweeps.spec import BudgetSpec, SweepSpec

if TYPE_CHECKING:
    from sweeps.axes import Raw
    from sweeps.study import Trial

STEP_SECONDS = 1.0
STEP_RECORDS = 400
"""Training curves are thinned to one step a second and this many a full run, so that a log stays
small whatever the length of the runs; the tracker gets every step."""


class Journal:
    """Everything that happened in one study. Not for two owners at once (see `lease`)."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.time,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the log in `folder`; `found` is what it said, None for a new study.

        check: called before each record; raises where it must not be written (see `Lease.check`).
        """
        self._view: SweepView | None = None
        self._clock, self._check = clock, check
        self._shelf = Shelf(folder / LOG_NAME)
        self._log = EventLog(folder, clock, self._replay)
        self.found: SweepView | None = self._view
        self._last_step: dict[int, tuple[float, int]] = {}

    def _replay(self, record: Record) -> None:
        self._view = advance(self._view, record)
        self._shelf.keep(self._view, record)

    @property
    def path(self) -> Path:
        """The log's file."""
        return self._log.path

    @property
    def view(self) -> SweepView:
        """The present view; its dictionary of trials changes with the next record."""
        assert self._view is not None, "the session record comes first"
        return self._view

    def snapshot(self) -> SweepView:
        """The present view, the receiver's to keep."""
        return replace(self.view, trials=dict(self.view.trials))

    def _write(self, kind: str, data: dict[str, Any], *, urgent: bool = True) -> None:
        self._check()
        self._replay(self._log.append(kind, data, urgent=urgent))

    def session(self, spec: SweepSpec) -> None:
        """A controller begins."""
        self._write(
            "session",
            {
                "spec": recorded(spec).model_dump(mode="json"),
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "code_version": code_version(),
            },
        )

    def extended(self, budget: BudgetSpec, request: str, points: Sequence[Raw] = ()) -> None:
        """People gave the sweep a larger budget, by this request, to try these points next."""
        queued = {"points": [dict(point) for point in points]} if points else {}
        made = {"budget": budget.model_dump(mode="json"), "request": request}
        self._write("extended", {**made, **queued})

    def queued(self, points: Sequence[Raw]) -> None:
        """Points are to be tried next, after those that are queued already."""
        self._write("queued", {"points": [dict(point) for point in points]})

    def asked(self, trial: Trial) -> None:
        """A trial has its point: chosen, queued, or refused as no valid job."""
        data = {"params": trial.shown, "raw": trial.raw, "job": trial.job.to_json()}
        ranks = {} if trial.workers is None else {"workers": trial.workers}
        self._write("asked", {"trial": trial.number, **data, **ranks})

    def waits(self, trial: int, reason: str) -> None:
        """A trial has no room to run; said once."""
        if self.view.trials[trial].waiting != reason:
            self._write("waits", {"trial": trial, "reason": reason})

    def placed(self, trial: int) -> None:
        """A launched trial that had to wait has its room now."""
        self._write("placed", {"trial": trial})

    def launched(self, trial: int) -> TrialView:
        """The next attempt of a trial is about to be started; its view carries the number."""
        attempt = self.view.trials[trial].attempt + 1
        self._write("launched", {"trial": trial, "attempt": attempt})
        self._last_step.pop(trial, None)
        return self.view.trials[trial]

    def heard(self, trial: int, event: Event, mark: Mark | None = None) -> float:
        """A job said something that ends nothing and scores nothing; steps are thinned.

        mark: the training loss's course at a checkpoint, where a rule looks at it.
        Returns when it was said, as the log has it.
        """
        if isinstance(event, Step):
            now = self._clock()
            if not self._due(trial, event.samples, now):
                return now
            self._last_step[trial] = (now, event.samples)
        more = {} if mark is None else {"course": asdict(mark)}
        return self._write_event(trial, event, more, urgent=not isinstance(event, Step))

    def scored(
        self, trial: int, event: Scored, violations: dict[str, float], violation: str
    ) -> float:
        """A job scored itself. violation: why the score does not count, '' where it does."""
        return self._write_event(trial, event, {"violations": violations, "violation": violation})

    def _write_event(
        self, trial: int, event: Event, more: dict[str, Any], *, urgent: bool = True
    ) -> float:
        attempt = self.view.trials[trial].attempt
        data = {"trial": trial, "attempt": attempt, "event": event.model_dump(mode="json"), **more}
        self._write("event", data, urgent=urgent)
        return self.view.updated

    def _due(self, trial: int, samples: int, now: float) -> bool:
        if trial not in self._last_step:
            return True
        at, before = self._last_step[trial]
        spacing = self.view.trials[trial].budget / STEP_RECORDS
        return now - at >= STEP_SECONDS and samples - before >= spacing

    def judged(self, trial: int, decision: Decision, samples: int) -> None:
        """A stopping rule spoke, other than 'continue'."""
        self._write(
            "judged", {"trial": trial, **decision.model_dump(mode="json"), "samples": samples}
        )

    def thawed(self, trial: int, reason: str, compared_from: int) -> None:
        """A trial that a rule had paused will run again."""
        assert self.view.trials[trial].frozen
        self._write("thawed", {"trial": trial, "reason": reason, "compared_from": compared_from})

    def requeued(
        self,
        trial: int,
        state: TrialState,
        reason: str,
        *,
        event: Event | None = None,
        counted: bool = False,
        lowered: tuple[str, int] | None = None,
    ) -> None:
        """A job ended early and its trial will run again. lowered: shape and micro-batch."""
        more = {} if lowered is None else {"shape": lowered[0], "micro_batch": lowered[1]}
        data = {"trial": trial, "state": state, "reason": reason, "counted": counted, **more}
        self._write("requeued", {**data, **_last_word(event), **self._until(trial)})

    def ended(
        self,
        trial: int,
        state: TrialState,
        reason: str,
        *,
        event: Event | None = None,
        objective: float | None = None,
    ) -> None:
        """A trial reached its final state."""
        assert state.final
        assert not self.view.trials[trial].state.final, f"trial {trial} ended twice"
        data = {"trial": trial, "state": state, "reason": reason, "objective": objective}
        self._write("ended", {**data, **_last_word(event), **self._until(trial)})
        self._last_step.pop(trial, None)

    def _until(self, trial: int) -> dict[str, Any]:
        """When the job ended, where that was with an earlier controller."""
        left = self.view.trials[trial].left
        return {} if left is None else {"until": left}

    def note(self, text: str) -> None:
        """A word about the sweep as a whole; said once."""
        if self.view.note != text:
            self._write("note", {"text": text})

    def held(self, note: str) -> None:
        """People paused the sweep; until it is resumed no time counts."""
        self._write("held", {"note": note})

    def resumed(self) -> None:
        """People let the sweep go on."""
        self._write("resumed", {"note": "resumed"})

    def closed(self, note: str) -> None:
        """The sweep is over."""
        self._write("closed", {"note": note})

    def close(self) -> None:
        """Sync and close the file; safe to call twice."""
        self._log.close()


def _last_word(event: Event | None) -> dict[str, Any]:
    return {} if event is None else {"event": event.model_dump(mode="json")}
