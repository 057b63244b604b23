"""The single event loop: asks Optuna, starts jobs, hears events, decides, tells.

Whatever it is about to do is written to the event log first, so killing it at any moment loses
nothing: the next controller on the same folder goes on from the log.

The loop hears people and Ctrl-C between its waits. Those are for jobs, for nothing on hold, for
the quota's space (each POLL_S at most) and for Optuna's next point (`patience_s`; see Clerk). After
the loop each store has FLUSH_S to take the rest.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from jobs.events import Failed, FailureKind, Finished, Stopped
from mir.errors import ClusterError, ConfigError, DataError, MirsweepError
from orchestrator.budget import spent
from orchestrator.control import Request, waiting
from orchestrator.desk import Desk
from orchestrator.endings import LastWord, Leaving, ending
from orchestrator.frozen import Frozen
from orchestrator.journal import Journal
from orchestrator.lease import lease
from orchestrator.ports import Executor, JobEvent, Suggester, Tracker, Waiting
from orchestrator.recovery import begin_session, recover
from orchestrator.remedy import HOPELESS_IN_A_ROW, hopeless
from orchestrator.room import Room
from orchestrator.screen import Screen
from orchestrator.signals import Interrupt, listening
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.steering import (
    DRAINED,
    PAUSED,
    STOPPED,
    add_points,
    enlarge,
    failed_points,
)
from orchestrator.study_folder import require_same, study_folder
from sweeps.space import space_of
from sweeps.spec import SweepSpec
from sweeps.study import Study

POLL_S = 0.25
DRAIN_S = 30.0
"""How long the controller waits for jobs that leave, beyond the grace that they have."""
FLUSH_S = 30.0

logger = logging.getLogger(__name__)


class Controller:
    """Runs one sweep in one folder; alone writes its log, its Optuna study and its tracker."""

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        executor: Executor,
        tracker: Tracker,
        on_change: Callable[[SweepView], None] | None = None,
        *,
        open_study: Callable[[SweepSpec, Path], Suggester] = Study,
        clock: Callable[[], float] = time.time,
        patience_s: float = math.inf,
        wait_s: float = 0.0,
    ) -> None:
        """patience_s: how long the loop waits for Optuna before it looks after jobs; see Clerk.

        wait_s: how long to wait for another controller of this study to leave or die.
        """
        self._spec = spec
        self._folder = folder
        self._executor = executor
        self._tracker = tracker
        self._screen = Screen(on_change)
        self._open_study = open_study
        self._clock = clock
        self._patience_s = patience_s
        self._wait_s = wait_s
        self._active: set[int] = set()
        self._queue: deque[int] = deque()
        self._failures: list[FailureKind] = []
        self._leaving: Leaving | None = None
        self._hold: Leaving | None = None
        self._paused: dict[int, Leaving] = {}
        self._asked_at, self._full_since = -math.inf, math.inf
        self._error: MirsweepError | None = None

    def run(self) -> SweepView:
        """Begin the sweep, or go on with it, until it is over or interrupted.

        `on_change` is called in this thread, at most a few times a second, with a view that is
        the caller's to keep. The returned view has `ended` set; it is None where the sweep was
        interrupted (SIGINT, SIGTERM) and waits for the same command, `note` says so.
        Raises ConfigError where a job can never fit the cluster or the recipe does not match the
        study, ClusterError where another controller holds the study or the disk is full; a
        sweep whose trials fail alike three times in a row ends with their kind of error. The
        executor and the tracker are closed in any case.
        """
        try:
            sizes = space_of(self._spec).sizes()
            self._room = Room(self._executor, self._spec.resources, sizes)
            view = self._run()
        finally:
            self._executor.close()
            self._tracker.close()
        if self._error is not None:
            raise self._error
        return view

    def _run(self) -> SweepView:
        with ExitStack() as stack:
            stack.enter_context(study_folder(self._folder))
            self._lease = stack.enter_context(lease(self._folder, self._wait_s))
            for path, request in waiting(self._folder):
                if request.passing:  # for an earlier controller, which did not live to hear it
                    path.unlink(missing_ok=True)
            interrupt = stack.enter_context(listening())
            journal = Journal(self._folder, self._clock, self._lease.check)
            stack.enter_context(closing(journal))
            # Jobs end before the lease does: the next controller must not meet them.
            stack.callback(self._tracker.close)
            stack.callback(self._executor.close)
            self._desk = self._open(journal)
            stack.callback(self._desk.clerk.close)
            stack.callback(self._desk.keeper.close)
            recover(self._desk)
            self._loop(interrupt)
            return self._close()

    def _open(self, journal: Journal) -> Desk:
        """Check the recipe against the study, reach Optuna and the tracker, begin the session."""
        if journal.found is not None:
            require_same(self._folder, journal.found.spec, self._spec)
        self._tracker.open_sweep(self._spec, self._folder)
        study = self._open_study(self._spec, self._folder)
        begin_session(journal, study, self._spec)
        return Desk(
            spec=journal.view.spec,
            folder=self._folder,
            journal=journal,
            study=study,
            executor=self._executor,
            tracker=self._tracker,
            patience_s=self._patience_s,
        )

    @property
    def _view(self) -> SweepView:
        return self._desk.journal.view

    def _loop(self, interrupt: Interrupt) -> None:
        self._desk.keeper.begin()
        known = sorted(self._view.trials.items())
        self._queue.extend(n for n, t in known if not t.state.final and not t.frozen)
        self._frozen = Frozen(self._desk)
        while True:
            self._lease.check()
            self._obey()
            self._leaving = self._leaving or self._reason_to_leave(interrupt)
            if self._leaving is not None:
                self._drain(self._leaving)
                return
            if not self._fill() and self._over():
                self._frozen.give_up_all("it was not resumed")
                return
            if self._hold is not None and not self._active:
                time.sleep(POLL_S)
            for said in self._executor.wait(POLL_S):
                self._hear(said)
            self._show()

    def _obey(self) -> None:
        """Carry out what people ask from other terminals; the log has it before it is done."""
        now = time.monotonic()
        if now - self._asked_at < POLL_S:
            return
        self._asked_at = now
        for path, request in waiting(self._folder):
            if path.stem not in self._view.requests:  # its file outlives a controller killed here
                self._carry_out(request, path.stem)
            path.unlink(missing_ok=True)

    def _carry_out(self, request: Request, name: str) -> None:
        match request.verb:
            case "stop":
                self._leaving = self._leaving or STOPPED
            case "drain":
                self._hold = DRAINED
            case "pause":
                self._pause()
            case "resume":
                self._hold = None
                self._desk.journal.resumed()
            case "extend":
                enlarge(self._desk, request, name)
            case "retry":
                add_points(self._desk, failed_points(self._view), name)
            case "enqueue":
                add_points(self._desk, [request.point], name)

    def _pause(self) -> None:
        self._hold = PAUSED
        self._desk.journal.held(PAUSED.reason)
        for number in sorted(self._active):
            self._paused[number] = PAUSED
            self._executor.stop(number, PAUSED.reason)

    def _reason_to_leave(self, interrupt: Interrupt) -> Leaving | None:
        if interrupt.name is not None:
            return Leaving(reason=f"interrupted by {interrupt.name}; the same command goes on")
        if self._hold is DRAINED and not self._active:
            return DRAINED
        over = spent(self._view, self._clock(), (self._desk.trial(n) for n in self._active))
        return None if over is None else Leaving(reason=over, final=True)

    def _over(self) -> bool:
        """Whether nothing runs and nothing will, but for paused trials that nobody resumes."""
        if self._active or self._queue or self._desk.left():
            return False
        return not self._frozen or (self._hold is None and self._room.open())

    def _fill(self) -> bool:
        """Start jobs while capacity, concurrency and budget allow; whether it waits for space."""
        if self._hold is not None or not (self._queue or self._frozen or self._desk.left()):
            return False
        if not self._has_room():
            return False
        if self._over_quota():
            return True
        while self._leaving is None and self._room.open():
            trial = self._next()
            if trial is None:
                return False
            if trial.state is TrialState.FAILED:
                self._count(Failed(kind="bad-configuration", reason=trial.reason))
                continue
            gang = self._desk.gang(trial)
            if not self._room.takes(gang):
                # A large job is not overtaken by small ones, which could keep it out for ever.
                self._desk.journal.waits(trial.number, self._room.why_waiting(gang))
                self._queue.appendleft(trial.number)
                return False
            self._active.add(trial.number)
            self._room.take(trial.number, gang)
            self._desk.launch(trial.number)
            self._show()
        return False

    def _next(self) -> TrialView | None:
        """What to run next: the queue, paused trials that have come up, new ones, paused ones."""
        if self._queue:
            return self._desk.trial(self._queue.popleft())
        new = self._desk.left() > 0
        return self._frozen.thaw(idle=not new and self._idle()) or (
            self._desk.ask() if new else None
        )

    def _idle(self) -> bool:
        """Whether room may go to a trial that is behind: it costs nothing else, or is paid for.

        A budget besides the trials' is there to be spent. Without one, room beside a trial that
        was never paused would only lie idle; with the last of them, the sweep is over.
        """
        budget = self._spec.budget
        if any((budget.hours, budget.samples, budget.gpu_hours, budget.cost)):
            return True
        return any(not self._desk.trial(number).resumed for number in self._active)

    def _over_quota(self) -> bool:
        """Whether to wait until space is given back; leave if nothing gives any."""
        keeper = self._desk.keeper
        if keeper.full is not None and (self._frozen or not self._active):
            # Who ended last may be giving its space back: FLUSH_S is only for failing to.
            if not keeper.flush(POLL_S):
                now = time.monotonic()
                self._full_since = math.inf if self._active else min(self._full_since, now)
                if now < max(self._full_since, keeper.failing_since) + FLUSH_S:
                    return True
            elif self._frozen and keeper.full is not None:
                self._frozen.give_up_worst(f"given up: {keeper.full}")
                return True
        full = keeper.full
        if full is None:
            self._full_since = math.inf
            return False
        self._desk.journal.note(full)
        if not self._active:
            self._leaving = Leaving(reason=full)
            self._error = ClusterError(f"{self._folder}: {full}")
        return True

    def _has_room(self) -> bool:
        """Whether a job may start; says why where none could on the empty cluster."""
        found = self._room.open()
        if not found and (reason := self._room.why_none()) is not None:
            self._desk.journal.note(f"queued: {reason}")
        return found

    def _hear(self, said: JobEvent) -> None:
        """Act on one event; those of ended and superseded attempts are not heard."""
        number, event = said.trial, said.event
        if number not in self._active or self._desk.trial(number).attempt != said.attempt:
            return
        match event:
            case Waiting():
                self._desk.journal.waits(number, event.reason)
            case Failed() | Stopped() | Finished():
                self._end(number, event)
            case _:
                self._room.placed(number)
                self._desk.placed(number)
                self._desk.heard(number, event)

    def _end(self, number: int, event: LastWord) -> None:
        paused = self._paused.pop(number, self._hold)  # the sweep may go on before it has left
        leaving = self._leaving or paused
        how = ending(self._desk.trial(number), event, self._spec, leaving)
        self._active.discard(number)
        self._room.leave(number)
        self._desk.finish(number, how, event)
        if self._desk.trial(number).frozen:
            self._frozen.add(number)
        elif not how.state.final:
            self._queue.append(number)
        elif how.state is TrialState.FAILED and isinstance(event, Failed):
            self._count(event)
        else:
            self._failures.clear()
        if how.halt is not None and self._leaving is None:
            self._leaving = Leaving(reason=how.halt)
            self._error = ClusterError(f"{self._folder}: {how.halt}")

    def _count(self, failure: Failed) -> None:
        """Stop the sweep where the newest failures say that going on is a waste."""
        self._failures.append(failure.kind)
        kind = hopeless(self._failures)
        if kind is None or self._leaving is not None:
            return
        text = (
            f"stopped after {HOPELESS_IN_A_ROW} trials in a row failed with {kind}. "
            f"The last one: {failure.reason}"
        )
        self._leaving = Leaving(reason=text)
        self._error = _ERRORS.get(kind, MirsweepError)(text)

    def _drain(self, leaving: Leaving) -> None:
        """Stop every job softly, so that it saves a checkpoint, and wait until all have left."""
        self._desk.journal.note(leaving.reason)
        for number in sorted(self._active):
            self._executor.stop(number, leaving.reason)
        deadline = time.monotonic() + self._spec.resources.grace_seconds + DRAIN_S
        while self._active and time.monotonic() < deadline:
            for said in self._executor.wait(POLL_S):
                self._hear(said)
            self._show()
        if not leaving.final:
            return
        for number in sorted(self._active):
            trial = self._desk.trial(number)
            word = Stopped(samples=trial.samples, reason=leaving.reason)
            self._desk.finish(number, ending(trial, word, self._spec, leaving), None)
        self._frozen.give_up_all(leaving.reason)

    def _close(self) -> SweepView:
        """Say how the sweep stands, see the last data off, and show it all once more."""
        if self._leaving is None or self._leaving.final:
            self._desk.journal.closed(
                self._leaving.reason if self._leaving else self._desk.exhausted
            )
        if not self._desk.close(FLUSH_S):
            logger.warning(
                "the study's storage does not answer and lacks the newest trials; "
                "running the same command again brings it up to date"
            )
        if not self._tracker.flush(FLUSH_S):
            logger.warning(
                "the tracking store does not answer and lacks the newest data; "
                "`mirsweep rebuild %s` brings it up to date when it is back",
                self._folder,
            )
        self._show(last=True)
        return self._desk.view()

    def _show(self, *, last: bool = False) -> None:
        self._screen.show(self._desk.view, last=last)


_ERRORS: dict[FailureKind, type[MirsweepError]] = {
    "bad-configuration": ConfigError,
    "bad-data": DataError,
}
