"""Jobs in this very process, step by step: for debugging, tests and machines without Ray.

Deterministic: each `wait` moves the running jobs in turn to their next event, nothing else runs
meanwhile. A job of several workers runs on one rank, which by design gives the same numbers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from jobs.events import TERMINAL, Event
from jobs.place import Place
from jobs.spec.downstream import AnyJob
from orchestrator.executors.outcome import whole
from orchestrator.executors.scores import with_scores_kept
from orchestrator.ports import Capacity, JobEvent, Launch

Runner = Callable[[AnyJob, Place], Iterator[Event]]


def default_runner(spec: AnyJob, place: Place) -> Iterator[Event]:
    """Runs a real job of any kind; imported late because it brings torch and DeepSpeed."""
    from jobs.downstream.run import run_any

    return run_any(spec, place)


@dataclass(kw_only=True)
class _Job:
    launch: Launch
    events: Iterator[Event]
    stop_reason: str | None = None


class InlineExecutor:
    """An Executor without processes. slots: jobs that take turns, one by default.

    nodes: what `capacity` says, this machine's CPUs by default.
    """

    def __init__(
        self,
        runner: Runner = default_runner,
        *,
        slots: int = 1,
        nodes: tuple[tuple[float, float], ...] | None = None,
    ) -> None:
        self._runner = runner
        self._capacity = Capacity(
            nodes=nodes or ((float(os.cpu_count() or 1), 0.0),), max_jobs=slots
        )
        self._jobs: deque[_Job] = deque()

    def capacity(self) -> Capacity:
        """This machine, one job at a time."""
        return self._capacity

    def start(self, launch: Launch) -> None:
        """Take the job in; its first event comes with a later `wait`."""
        job = _Job(launch=launch, events=iter(()))
        place = Place(
            folder=launch.folder,
            threads=max(1, int(launch.resources.cpus_per_worker)),
            device="cuda" if launch.resources.gpus_per_worker else "cpu",
            shared=launch.shared,
            stop_requested=lambda: job.stop_reason,
        )

        def run() -> Iterator[Event]:
            launch.folder.mkdir(parents=True, exist_ok=True)
            return with_scores_kept(self._runner(launch.spec, place), launch.folder)

        job.events = whole(run)
        self._jobs.append(job)

    def stop(self, trial: int, reason: str) -> None:
        """The job sees the reason at its next step boundary."""
        for job in self._jobs:
            if job.launch.trial == trial and job.stop_reason is None:
                job.stop_reason = reason

    def wait(self, timeout_s: float) -> Sequence[JobEvent]:  # noqa: ARG002 - it never waits
        """The next event of the job whose turn it is; returns at once where nothing runs."""
        if not self._jobs:
            return ()
        job = self._jobs.popleft()
        event = next(job.events)
        if isinstance(event, TERMINAL):
            _free(job)
        else:
            self._jobs.append(job)
        return (JobEvent(trial=job.launch.trial, attempt=job.launch.attempt, event=event),)

    def close(self) -> None:
        """Abandon every job where it stands; its generator cleans up."""
        while self._jobs:
            _free(self._jobs.popleft())


def _free(job: _Job) -> None:
    """Let the runner clean up now, not when its generator happens to be collected."""
    if isinstance(job.events, Generator):
        job.events.close()
