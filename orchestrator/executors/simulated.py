"""Jobs that only pretend: their scores come from a table and their time passes on a clock of ours.

Under the same controller as real jobs, a sweep of days is over in seconds. A job that was stopped
goes on from where it was, as one with a checkpoint does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from jobs.events import Checkpointed, Event, Finished, Scored, Started, Stopped
from orchestrator.ports import Capacity, JobEvent, Launch

Curve = Callable[[Launch], Sequence[Scored]]
"""The scores of a launched job from before training to its full budget."""


@dataclass
class _Job:
    launch: Launch
    events: Iterator[tuple[float, Event]]
    begun: float
    launched: float
    seen: int
    version: int


@dataclass(order=True)
class _Due:
    at: float
    order: int
    trial: int = field(compare=False)
    version: int = field(compare=False)
    event: Event = field(compare=False)


class SimulatedExecutor:
    """An Executor in virtual time.

    curve: the scores of a job. pace: seconds that a job takes for one sample. slots: jobs at once.
    nodes: what the pretended cluster has.
    """

    def __init__(
        self,
        curve: Curve,
        pace: Callable[[Launch], float],
        *,
        slots: int = 1,
        nodes: tuple[tuple[float, float], ...] = ((1e6, 1e6),),
    ) -> None:
        self._curve, self._pace = curve, pace
        self._capacity = Capacity(nodes=nodes, max_jobs=slots)
        self._now, self._order, self._version = 0.0, 0, 0
        self._due: list[_Due] = []
        self._jobs: dict[int, _Job] = {}
        self._reached: dict[int, int] = {}
        self.spans: list[tuple[float, float, int]] = []
        """When each attempt that has ended began and ended, and on how many workers it ran."""

    def clock(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now

    def capacity(self) -> Capacity:
        """All resources of the pretended cluster."""
        return self._capacity

    def start(self, launch: Launch) -> None:
        """Start at once, from where an earlier attempt was stopped."""
        begin = self._reached.get(launch.trial, 0)
        events = self._events(launch, begin)
        job = _Job(launch, events, self._now, self._now, begin, self._anew())
        self._jobs[launch.trial] = job
        self._next(job)

    def stop(self, trial: int, reason: str) -> None:
        """The job leaves at its present sample; nothing for a job that has ended."""
        job = self._jobs.get(trial)
        if job is None:
            return
        job.version = self._anew()
        pace = self._pace(job.launch)
        job.seen += int((self._now - job.begun) / pace) if pace > 0 else 0
        self._reached[trial] = job.seen
        self._say(job, self._now, Stopped(samples=job.seen, reason=reason))

    def wait(self, timeout_s: float) -> Sequence[JobEvent]:  # noqa: ARG002
        """The next event; the clock goes to where it happens."""
        while self._due:
            due = heapq.heappop(self._due)
            job = self._jobs.get(due.trial)
            if job is None or due.version != job.version:
                continue
            self._now = max(self._now, due.at)
            if isinstance(due.event, Finished | Stopped):
                self.spans.append((job.launched, self._now, job.launch.resources.workers))
                del self._jobs[due.trial]
            else:
                if isinstance(due.event, Scored):
                    job.seen, job.begun = due.event.samples, self._now
                self._next(job)
            attempt = job.launch.attempt
            return (JobEvent(trial=due.trial, attempt=attempt, event=due.event),)
        return ()

    def close(self) -> None:
        """End every job; safe to call twice."""
        self._jobs.clear()
        self._due.clear()

    def _anew(self) -> int:
        """A version that no event before has: what an earlier attempt had yet to say is void."""
        self._version += 1
        return self._version

    def _next(self, job: _Job) -> None:
        after, event = next(job.events)
        self._say(job, self._now + after, event)

    def _say(self, job: _Job, at: float, event: Event) -> None:
        self._order += 1
        heapq.heappush(self._due, _Due(at, self._order, job.launch.trial, job.version, event))

    def _events(self, launch: Launch, begin: int) -> Iterator[tuple[float, Event]]:
        """What a job says, each with the seconds since what it said before."""
        pace, seen = self._pace(launch), begin
        yield 0.0, Started(ranks=1, device="simulated", trainable={}, resumed_samples=begin)
        for score in self._curve(launch):
            if score.samples < begin or (begin and score.samples == begin):
                continue
            yield (score.samples - seen) * pace, score
            seen = score.samples
        yield 0.0, Checkpointed(samples=seen, path="")
        yield 0.0, Finished(samples=seen, seconds=seen * pace)
