"""Nodes where workers were lost, and who keeps away from them: plain bookkeeping, without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.placement import capacity_of, why_not
from sweeps.spec import ResourceSpec

SICK = 2
"""So many trials that lost a worker on a node, none having finished there since, make it sick."""


class Losses:
    """Which trials lost a worker on which node since a job last finished there.

    Nodes go by Ray's ids. Used from the threads of all jobs: each act is one step of a dict.
    """

    def __init__(self) -> None:
        self._by_node: dict[str, frozenset[int]] = {}

    def lost(self, trial: int, nodes: Iterable[str]) -> None:
        """A worker of the trial was lost on each of these nodes."""
        for node in nodes:
            self._by_node[node] = self._by_node.get(node, frozenset()) | {trial}

    def well(self, nodes: Iterable[str]) -> None:
        """A job finished on these nodes."""
        for node in nodes:
            self._by_node.pop(node, None)

    def shunned(
        self, trial: int, resources: ResourceSpec, nodes: Mapping[str, Mapping[str, float]]
    ) -> frozenset[str]:
        """Nodes that this trial's next job keeps away from: none where it fits nowhere else.

        nodes: what each node that is alive has, busy or not.
        """
        marked = self._by_node
        found = {n for n in nodes if trial in (by := marked.get(n, ())) or len(by) >= SICK}
        rest = capacity_of(has for node, has in nodes.items() if node not in found)
        return frozenset(found) if why_not(rest, resources) is None else frozenset()
