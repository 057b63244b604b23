"""A controller on strings: it runs in a thread and moves only when a test says what happens next.

Its executor hands every turn to the test and gets back what the jobs are to do.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

from small_world import FakeJobs, FakeStudy, Fuse, Fused, Killed

from jobs.events import Failed
from mir.errors import ClusterError, MirsweepError
from orchestrator.controller import Controller
from orchestrator.eventlog import EventLog
from orchestrator.executors.inline import InlineExecutor, _free
from orchestrator.ports import Capacity, JobEvent, Placed, Waiting
from orchestrator.signals import Interrupt
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import SweepSpec

PATIENCE_S = 20.0
Act = Callable[["PuppetExecutor"], Sequence[JobEvent]]


class Outage:
    """What it wraps refuses everything while it lasts, as a storage that is away does."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self.lasts = False

    def __getattr__(self, name: str):
        method = getattr(self._inner, name)

        def call(*args, **kwargs):
            if self.lasts:
                raise ClusterError("study storage: nobody answers")
            return method(*args, **kwargs)

        return call


class PuppetExecutor(InlineExecutor):
    """Does in each `wait` what the test wants. said: everything that jobs ever said."""

    def __init__(self, jobs: FakeJobs, nodes: tuple[tuple[float, float], ...]) -> None:
        super().__init__(jobs, slots=99, nodes=nodes)
        self.turns: queue.Queue[object] = queue.Queue()
        self.acts: queue.Queue[Act | BaseException] = queue.Queue()
        self.said: list[JobEvent] = []
        self.crowded = False

    @property
    def running(self) -> list[int]:
        return sorted(job.launch.trial for job in self._jobs)

    def resize(self, cpus: float) -> None:
        self._capacity = Capacity(nodes=((cpus, 0.0),))

    def start(self, launch):
        self.crowded |= launch.trial in self.running
        taken = sum(job.launch.resources.workers for job in self._jobs)
        self.crowded |= taken + launch.resources.workers > self._capacity.nodes[0][0]
        super().start(launch)

    def wait(self, timeout_s):
        self.turns.put("waiting")
        act = self.acts.get(timeout=PATIENCE_S)
        if isinstance(act, BaseException):
            raise act
        events = act(self)
        # Only what jobs say can come late: what executors say of their place is said in order.
        self.said.extend(e for e in events if not isinstance(e.event, Waiting | Placed))
        return events

    def move(self, index: int) -> Sequence[JobEvent]:
        """The next event of one of the jobs."""
        if not self._jobs:
            return ()
        self._jobs.rotate(-(index % len(self._jobs)))
        return super().wait(0.0)

    def fail(self, index: int, failure: Failed) -> Sequence[JobEvent]:
        """One of the jobs ends like this."""
        if not self._jobs:
            return ()
        self._jobs.rotate(-(index % len(self._jobs)))
        job = self._jobs.popleft()
        _free(job)
        return (JobEvent(trial=job.launch.trial, attempt=job.launch.attempt, event=failure),)

    def crowd(self, index: int) -> Sequence[JobEvent]:
        """One of the jobs finds its place taken by others for a while."""
        if not self._jobs:
            return ()
        launch = self._jobs[index % len(self._jobs)].launch
        words = (Waiting("needs 1 CPUs on one node, 0 free"), Placed())
        return [JobEvent(trial=launch.trial, attempt=launch.attempt, event=w) for w in words]

    def repeat(self, back: int) -> Sequence[JobEvent]:
        """Something that was said before comes once more, or late."""
        return self.said[-1 - back % len(self.said) :][:1] if self.said else ()


class Stage:
    """What outlives controllers, and the one that runs now, if any."""

    def __init__(
        self, folder: Path, spec: SweepSpec, cpus: float, sizes: tuple[int, ...] = ()
    ) -> None:
        self.folder, self.spec, self.cpus = folder / "study", spec, cpus
        self.jobs = FakeJobs()
        self.study = FakeStudy(spec, sizes=sizes)
        self.storage = Outage(self.study)
        self.tracker = MemoryTracker()
        self.fuse = Fuse()
        self.interrupt = Interrupt()
        self.executor: PuppetExecutor | None = None
        self.crowded = False
        self.ended: object = None

    def begin(self) -> None:
        """Start a controller and wait for its first turn."""
        self.interrupt = Interrupt()
        self.executor = executor = PuppetExecutor(self.jobs, ((self.cpus, 0.0),))
        controller = Controller(
            self.spec,
            self.folder,
            executor,
            Fused(self.tracker, self.fuse),
            open_study=lambda *_: Fused(self.storage, self.fuse),
        )

        def run() -> None:
            try:
                executor.turns.put(("ended", controller.run()))
            except BaseException as error:  # noqa: BLE001 - handed over to the test
                executor.turns.put(("raised", error))

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._next()

    def turn(self, act: Act | BaseException) -> None:
        """Let the controller go on until it waits again, ends or dies."""
        assert self.executor is not None
        self.executor.acts.put(act)
        self._next()

    def _next(self) -> None:
        executor = self.executor
        turn = executor.turns.get(timeout=PATIENCE_S)
        self.crowded |= executor.crowded
        if turn == "waiting":
            return
        self._thread.join(PATIENCE_S)
        self.executor = None
        how, what = turn
        self.ended = what
        if how == "raised" and not isinstance(what, Killed | MirsweepError):
            raise what
        if isinstance(what, MirsweepError) and not self.storage.lasts:
            assert "in a row" in str(what) or "free some space" in str(what), what

    @contextmanager
    def played(self):
        """Every write of the log burns the fuse; Ctrl-C is what the test says."""
        import orchestrator.controller as module

        append, listening = EventLog.append, module.listening

        def burning(log, *args, **kwargs):
            self.fuse()
            record = append(log, *args, **kwargs)
            self.fuse()
            return record

        @contextmanager
        def deaf():
            yield self.interrupt

        EventLog.append, module.listening = burning, deaf
        try:
            yield
        finally:
            EventLog.append, module.listening = append, listening
