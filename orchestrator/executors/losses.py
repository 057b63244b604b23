"""Nodes where workers were lost, and who keeps away from them: plain bookkeeping, without Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from orchestrator.placement import capacity_of, why_not
from sweeps.spec import ResourceSpec

Nodes = Mapping[str, Mapping[str, float]]
"""What nodes have of each resource, by the nodes' ids."""
SICK = 2
"""So many trials that lost a worker on a node, none having left it in order since, make it sick."""

SETTLE_S = 10.0
"""How long a trial waits for room elsewhere after a loss of its own: a cluster hears a little late
of room that was given back."""


class Losses:
    """Which trials lost a worker on which node since a job last left it in order.

    Nodes go by Ray's ids. Used from the threads of all jobs.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_node: dict[str, frozenset[int]] = {}
        self._newest: dict[str, float] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def lost(self, trial: int, nodes: Iterable[str]) -> None:
        """A worker of the trial was lost on each of these nodes."""
        with self._lock:
            for node in nodes:
                self._by_node[node] = self._by_node.get(node, frozenset()) | {trial}
                self._newest[node] = self._clock()

    def well(self, nodes: Iterable[str]) -> None:
        """A job left these nodes in order."""
        with self._lock:
            for node in nodes:
                self._by_node.pop(node, None)

    def __len__(self) -> int:
        return len(self._by_node)

    def shunned(
        self, trial: int, resources: ResourceSpec, nodes: Nodes, free: Nodes
    ) -> frozenset[str]:
        """Nodes that this trial's next job keeps away from: none where it fits nowhere else.

        nodes: what each node that is alive has, busy or not; free: what nobody has taken of it.
        A sick node is worth waiting for another; one loss of its own, which may have been the
        trial's fault or chance, only makes the job choose another where that has room now or in
        a moment.
        """
        with self._lock:
            marked, recent = dict(self._by_node), self._clock() - SETTLE_S
            fresh = {node for node in marked if self._newest[node] > recent}
        sick = frozenset(node for node in nodes if len(marked.get(node, ())) >= SICK)
        own = frozenset(node for node in nodes if trial in marked.get(node, ()))
        for found, has in ((sick | own, free), (sick | (own & fresh), nodes), (sick, nodes)):
            rest = capacity_of(has.get(node, {}) for node in nodes if node not in found)
            if found and why_not(rest, resources) is None:
                return found
        return frozenset()


def elsewhere(resources: ResourceSpec, used: Iterable[str], nodes: Nodes) -> bool:
    """Whether a job fits the cluster without one of the nodes that it has come to."""
    return any(
        why_not(capacity_of(nodes[n] for n in nodes if n != node), resources) is None
        for node in set(used)
    )
