"""Gangs whose job has left in order and that wait a moment for the next one; knows nothing of Ray.

Why they wait: infra/decisions/0004-one-process-serves-several-small-jobs.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from typing import Generic, Protocol, TypeVar

from sweeps.spec import ResourceSpec

GROWTH = 384 * 2**20
"""Bytes by which a process may have come to occupy more than its first job made it occupy at most:
real jobs leave 60 to 120 MB behind each, so it serves about five of them that are alike."""


class Gang(Protocol):
    """Processes with resources of their own."""

    @property
    def resources(self) -> ResourceSpec:
        """What they hold."""
        ...

    @property
    def nodes(self) -> Sequence[str]:
        """Where they are."""
        ...

    def free(self) -> None:
        """End them."""
        ...


G = TypeVar("G", bound=Gang)


class Spares(Generic[G]):
    """What waits, the newest last. Used from the threads of all jobs."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, G]] = []
        self._lock = threading.Lock()

    def put(self, gang: G) -> None:
        """It waits from now on."""
        with self._lock:
            self._waiting.append((time.monotonic(), gang))

    def take(self, resources: ResourceSpec, shunned: Collection[str]) -> G | None:
        """One of just these resources and on none of these nodes."""
        with self._lock:
            for i, (_, gang) in reversed(list(enumerate(self._waiting))):
                if gang.resources == resources and not set(shunned) & set(gang.nodes):
                    del self._waiting[i]
                    return gang
        return None

    def free(self, older_than_s: float) -> None:
        """End those that have waited for so long."""
        limit = time.monotonic() - older_than_s
        with self._lock:
            old = [gang for since, gang in self._waiting if since <= limit]
            self._waiting = [(since, gang) for since, gang in self._waiting if since > limit]
        for gang in old:
            gang.free()
