"""The outside worlds as small Protocols: who runs jobs, who remembers them, who chooses them.

Each has an in-process twin (`InlineExecutor`, `MemoryTracker`) that passes the same contract test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from jobs.events import Event
from jobs.spec import JobSpec
from jobs.spec.downstream import AnyJob
from sweeps.spec import ResourceSpec, SweepSpec

if TYPE_CHECKING:
    from sweeps.axes import Raw, Shown
    from sweeps.study import Trial
    from sweeps.transfer import Earlier


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One attempt to run one trial; it resumes from the newest checkpoint in `folder` if any.

    shared: folder of the whole study, None for a job of its own. last: no restart is left should
        a worker be lost.
    """

    trial: int
    attempt: int
    spec: AnyJob
    resources: ResourceSpec
    folder: Path
    shared: Path | None = None
    last: bool = False


@dataclass(frozen=True)
class Waiting:
    """An executor has taken a job, but the cluster has no room for it yet."""

    reason: str


@dataclass(frozen=True)
class Placed:
    """A job that waited has its resources now."""


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """An event with its sender; events of a superseded attempt are ignored by the controller."""

    trial: int
    attempt: int
    event: Event | Waiting | Placed


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What an executor can give: one (cpus, gpus) pair a node.

    max_jobs: how many jobs it runs at once, None for as many as the nodes hold.
    custom: other resources of each node by name, in the order of `nodes`; empty for none.
    """

    nodes: tuple[tuple[float, float], ...]
    max_jobs: int | None = None
    custom: tuple[Mapping[str, float], ...] = ()


class Executor(Protocol):
    """Runs jobs as gangs of ranks and reports what they say, in order for each job."""

    def capacity(self) -> Capacity:
        """All resources of the cluster, busy ones included."""
        ...

    def start(self, launch: Launch) -> None:
        """Start without waiting; every started attempt ends with exactly one terminal event."""
        ...

    def stop(self, trial: int, reason: str) -> None:
        """Ask for a soft stop at the next step boundary; kill after a grace period.

        reason: a `Dismissal` where the job need not save, as its trial has ended for good.
        """
        ...

    def wait(self, timeout_s: float) -> Sequence[JobEvent]:
        """Events that have come; blocks until there is one or the time is over."""
        ...

    def close(self) -> None:
        """End every job and free everything; safe to call twice."""
        ...


class Tracker(Protocol):
    """Remembers a sweep for people. Never blocks a caller and never raises while running."""

    def open_sweep(self, spec: SweepSpec, folder: Path) -> None:
        """Begin or continue the parent run. Raises ClusterError if the store cannot be reached."""
        ...

    def ended_trials(self) -> frozenset[int]:
        """Trials of the opened sweep that the store already had as ended when it was opened."""
        ...

    def trial_started(
        self, trial: int, spec: JobSpec, params: dict[str, float | int | str]
    ) -> None:
        """Begin or continue the child run of a trial; told again after a restart."""
        ...

    def record(self, trial: int, event: Event, at: float) -> None:
        """Keep a job's event: step metrics, scores with per-layer artefacts, skipped samples.

        at: when it was said, seconds since the epoch. Told again with the same time, an event is
        kept once; so is a step or score that a restarted trial goes through again.
        """
        ...

    def trial_left(self, trial: int, state: str, reason: str) -> None:
        """Say that the trial runs no longer but will again, and why: queued, paused, preempted."""
        ...

    def trial_ended(self, trial: int, state: str, reason: str) -> None:
        """Close the child run with the state and reason of its end."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is stored; False if something is still waiting for a dead server."""
        ...

    def close(self) -> None:
        """Flush, close the parent run and free everything; safe to call twice."""
        ...


class Suggester(Protocol):
    """Chooses trials and hears how they ended: `sweeps.study.Study`, or a twin in tests."""

    def first(self, begun: int, earlier: Callable[[str], Sequence[Earlier]]) -> list[Raw]:
        """The points to try before any that are chosen, without the `begun` first of them.

        earlier: the trials of another study, best first.
        """
        ...

    def ask(self, number: int, given: Raw) -> Trial:
        """Begin this trial, or go on where that was interrupted. given: what is not chosen.

        Raises RefusedError, telling it as failed, if it is no valid job, and ExhaustedError,
        beginning none, if there is nothing left to choose.
        """
        ...

    def restore(self, number: int, raw: Raw, shown: Shown) -> None:
        """Make a trial of the log again, unless the study has it."""
        ...

    def states(self) -> dict[int, str]:
        """WAITING, RUNNING, COMPLETE, PRUNED or FAIL by number."""
        ...

    def report(self, number: int, samples: int, value: float, error: float = 0.0) -> None:
        """Note a feasible score of a running trial; telling it twice changes nothing."""
        ...

    def paused(self, number: int, *, paused: bool) -> None:
        """Note that a running trial waits to be resumed, perhaps for ever, or that it goes on.

        Samplers take a waiting one for stopped; it is not told as ended.
        """
        ...

    def also(self, number: int, values: Sequence[float]) -> None:
        """Note the other objectives of a running trial that is about to end."""
        ...

    def tell_complete(self, number: int, objective: float, violations: Mapping[str, float]) -> None:
        """End a trial with its value; telling it twice changes nothing."""
        ...

    def tell_pruned(
        self, number: int, reason: str, violations: Mapping[str, float] | None = None
    ) -> None:
        """End a trial that was stopped; telling it twice changes nothing."""
        ...

    def tell_failed(self, number: int, reason: str) -> None:
        """End a trial without a value; telling it twice changes nothing."""
        ...
