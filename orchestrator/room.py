"""Whether the next job has room beside those that run; looks at the cluster now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from mir.errors import ConfigError
from orchestrator.placement import fits, job_slots, left, require_fit, why_not, why_waiting
from orchestrator.ports import Executor
from sweeps.spec import ResourceSpec

LOOK_S = 1.0


class Room:
    """The cluster as a sweep's jobs fill it.

    sizes: every number of ranks that a job may have. Jobs of one size are counted; jobs of several
    are seated on the nodes one after the other, which is how full the cluster can be at best.
    Where Ray has placed them otherwise, or others use the cluster too, the next job waits there.
    """

    def __init__(self, executor: Executor, resources: ResourceSpec, sizes: Iterable[int]) -> None:
        """Raises ConfigError where a job of some size can never run on the cluster."""
        self._executor, self._resources = executor, resources
        self._gangs = [resources.of(workers) for workers in sorted(set(sizes))]
        self._capacity = executor.capacity()
        self._looked, self._full = -math.inf, False
        self._jobs: dict[int, ResourceSpec] = {}
        self._beyond: set[int] = set()
        for gang in self._gangs:
            self._require(gang)

    def _require(self, gang: ResourceSpec) -> None:
        try:
            require_fit(self._capacity, gang)
        except ConfigError as error:
            if len(self._gangs) == 1:
                raise
            raise ConfigError(f"space.resources.workers: {gang.workers}: {error}") from error

    def take(self, number: int, gang: ResourceSpec) -> None:
        """A job begins."""
        if not self._holds(gang):
            self._beyond.add(number)
        self._jobs[number] = gang

    def placed(self, number: int) -> None:
        """A job that was asked for beyond what the cluster holds has its resources."""
        self._beyond.discard(number)

    def leave(self, number: int) -> None:
        """A job has ended."""
        del self._jobs[number]
        self._beyond.discard(number)
        self._full = False

    def open(self) -> bool:
        """Whether the smallest job may begin; a full cluster is looked at again once a second."""
        now = time.monotonic()
        if self._full and now - self._looked < LOOK_S:
            return False
        self._capacity, self._looked = self._executor.capacity(), now
        found = self.takes(self._gangs[0])
        self._full = not found and bool(self._jobs)
        return found

    def takes(self, gang: ResourceSpec) -> bool:
        """Whether this job may begin now: in what is free, or as the one beyond it.

        Of a cluster that grows by demand, one job at a time is asked for beyond its size.
        """
        if self._holds(gang):
            return True
        return gang.autoscale and not self._beyond and self._allowed()

    def _holds(self, gang: ResourceSpec) -> bool:
        if len(self._gangs) == 1:
            return len(self._jobs) < job_slots(self._capacity, gang)
        return self._allowed() and fits(self._capacity, [*self._jobs.values(), gang])

    def _allowed(self) -> bool:
        limits = (self._capacity.max_jobs, self._resources.max_concurrent)
        return all(limit is None or len(self._jobs) < limit for limit in limits)

    def why_none(self) -> str | None:
        """Why not even the smallest job fits the empty cluster, None where it does."""
        return None if self._jobs else why_not(self._capacity, self._gangs[0])

    def why_waiting(self, gang: ResourceSpec) -> str:
        """Why a job has to wait."""
        never = why_not(self._capacity, gang)
        if never is not None:
            return never
        if not self._allowed():
            return f"needs one of the {len(self._jobs)} jobs to end that may run at once"
        return why_waiting(left(self._capacity, self._jobs.values()), gang)
