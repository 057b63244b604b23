"""Jobs as gangs of ranks under Ray: one placement group and one actor process a rank.

The only file that imports ray. Why not Ray Train: infra/decisions (start-up, stop, memory).
Placement groups are made by this process, which outlives the jobs: a group whose creator dies
while its driver lives is not freed.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.events import TERMINAL, Event, Failed, Stopped
from mir.errors import UnreachableError
from orchestrator.executors.answer import require_answer
from orchestrator.executors.attempt import Attempt, Cancelled, Patience
from orchestrator.executors.inline import Runner, default_runner
from orchestrator.executors.losses import Losses, elsewhere
from orchestrator.executors.outcome import broken, first_line
from orchestrator.executors.ray_rank import Rank, RankPlace, heard, rank_places
from orchestrator.executors.spares import GROWTH, Spares
from orchestrator.placement import capacity_of, wants, why_waiting
from orchestrator.ports import Capacity, JobEvent, Launch, Placed, Waiting
from sweeps.spec import ResourceSpec

# Read by ray when it is imported and started.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Otherwise a supervisor that outlives its executor starts a second Ray by its next call.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray
from ray import exceptions as raised
from ray._private.state import available_resources_per_node
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

logger = logging.getLogger(__name__)

_POLL_S = 0.25
_LAST_WORDS_S = 2.0
"""After one rank failed, how long the others may take to say what they know."""

LOST = (
    raised.RayActorError,
    raised.WorkerCrashedError,
    raised.ObjectLostError,
    raised.NodeDiedError,
    raised.OutOfMemoryError,
)
"""What Ray raises when a process or its node is gone, or was killed because its node's memory
ran out: whoever took that memory, a smaller micro-batch would be the wrong answer for good."""


@dataclass(kw_only=True)
class _Gang:
    """Actors in rank order, their nodes, and the placement group that holds their resources.

    size: bytes that its process occupied at most up to the end of its first job, 0 before.
    """

    resources: ResourceSpec
    group: Any
    ranks: list[Any] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    size: int = 0

    def free(self) -> None:
        """Kill the processes and give the resources back."""
        for rank in self.ranks:
            ray.kill(rank)
        remove_placement_group(self.group)


class RayExecutor:
    """An Executor on Ray.

    address: None starts a local Ray that ends with this executor; 'auto' or 'host:port' joins a
        running cluster, whose nodes must have this package installed and see the study's folder.
    num_cpus: size of a local Ray, None for all cores.
    spare_s: how long the process of a one-rank CPU job that left in order waits for the next job,
        0 for a process a job. All others get fresh ones: they hold more, and start less often.
    """

    def __init__(
        self,
        address: str | None = None,
        num_cpus: int | None = None,
        *,
        runner: Runner = default_runner,
        spare_s: float = 1.0,
    ) -> None:
        self._runner = runner
        self._events: queue.Queue[JobEvent] = queue.Queue()
        self._jobs: dict[int, Attempt] = {}
        self._losses = Losses()
        self._spare_s = spare_s
        self._spares: Spares[_Gang] = Spares()
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _connect(address, num_cpus)

    def capacity(self) -> Capacity:
        """What every node that is alive has."""
        return capacity_of(_alive().values())

    def free(self, without: Collection[str] = ()) -> Capacity:
        """What nobody has taken at the moment, of every node that is alive but for some."""
        found = available_resources_per_node()
        return capacity_of(has for node, has in found.items() if node not in without)

    def start(self, launch: Launch) -> None:
        """Begin to place the gang; it runs as soon as the cluster has room."""
        job = Attempt(launch=launch)
        job.thread = threading.Thread(
            target=self._supervise, args=(job,), name=f"job-{job.name}", daemon=True
        )
        self._jobs[launch.trial] = job
        job.thread.start()

    def stop(self, trial: int, reason: str) -> None:
        """Ask every rank; the ranks agree on the step at which they leave together."""
        job = self._jobs.get(trial)
        if job is None or job.stop_reason is not None:
            return
        with job.lock:
            job.stop_reason = reason
            grace_s = job.launch.resources.grace_seconds if job.running else 0.0
            job.kill_at = time.monotonic() + grace_s
            for rank in job.gang.ranks if job.gang else ():
                rank.stop.remote(job.name, reason)

    def wait(self, timeout_s: float) -> Sequence[JobEvent]:
        """Everything that has come; blocks until something has, or the time is over."""
        self._spares.free(self._spare_s)
        try:
            events = [self._events.get(timeout=timeout_s)]
        except queue.Empty:
            return ()
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events

    def close(self) -> None:
        """Kill every job, then leave Ray, which ends with its processes if it was started here."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.kill_at = 0.0
        for job in jobs:
            if job.thread is not None:
                job.thread.join(timeout=10.0)
        self._jobs.clear()
        self._spare_s = 0.0
        if ray.is_initialized():
            self._spares.free(0.0)
        if self._owns_ray:
            ray.shutdown()
            ray._private.worker._worker_logs_enabled = True

    def _supervise(self, job: Attempt) -> None:
        """One attempt from its placement to its last event, in a thread of its own."""
        try:
            last = self._conduct(job)
        except Cancelled:
            last = job.after_kill()
        except Exception as error:  # noqa: BLE001 - a job that ends unheard holds its slot for ever
            last = broken(error, LOST, elsewhere=lambda: _may_do_elsewhere(job))
        try:
            if job.gang is not None:
                self._release(job, job.gang, last)
        except Exception:  # a job that ends unheard holds its slot for ever
            logger.warning("job %s: its processes could not be ended", job.name, exc_info=True)
        if self._jobs.get(job.launch.trial) is job:
            del self._jobs[job.launch.trial]
        self._emit(job, last)

    def _release(self, job: Attempt, gang: _Gang, last: Event) -> None:
        """Give the gang up; note what its end says of its nodes, unless it was forced."""
        try:
            if job.left_in_order:
                self._losses.well(gang.nodes)
            elif getattr(last, "kind", "") == "worker-lost" and time.monotonic() < job.kill_at:
                self._losses.lost(job.launch.trial, _lost_on(gang))
        finally:
            if not (job.left_in_order and self._keep(gang)):
                gang.free()

    def _shunned(self, launch: Launch) -> frozenset[str]:
        if not self._losses:  # Ray is asked for its nodes only where that matters
            return frozenset()
        free = available_resources_per_node()
        return self._losses.shunned(launch.trial, launch.resources, _alive(), free)

    def _keep(self, gang: _Gang) -> bool:
        """Whether the gang now waits for another job."""
        resources = gang.resources
        if resources.workers > 1 or resources.gpus_per_worker or not self._spare_s:
            return False
        try:
            size = ray.get(gang.ranks[0].size.remote(), timeout=_LAST_WORDS_S)
        except (raised.RayError, TimeoutError):
            return False
        gang.size = gang.size or size
        if size > gang.size + GROWTH:
            return False
        self._spares.put(gang)
        return True

    def _emit(self, job: Attempt, event: Event | Waiting | Placed) -> None:
        launch = job.launch
        self._events.put(JobEvent(trial=launch.trial, attempt=launch.attempt, event=event))

    def _place(self, job: Attempt) -> _Gang:
        """A placement group for the whole gang, waited for as long as it takes.

        While it is pending, a cluster that grows by demand sees it.
        """
        job.check()
        patience = Patience(lambda said: self._emit(job, said))
        while True:
            shunned, granted = self._shunned(job.launch), False
            group = _reserve(job.launch.resources, shunned)
            try:
                granted = self._granted(group, job, shunned, patience)
            finally:
                if not granted:
                    remove_placement_group(group)
            if granted:
                patience.placed()
                return _Gang(resources=job.launch.resources, group=group)

    def _granted(
        self, group: Any, job: Attempt, shunned: frozenset[str], patience: Patience
    ) -> bool:
        """Wait for a group; False where by now the job has to keep away from other nodes."""
        beside = f", beside nodes where a worker was lost ({len(shunned)})" if shunned else ""
        while not group.wait(_POLL_S):
            job.check()
            patience.waits(lambda: why_waiting(self.free(shunned), job.launch.resources) + beside)
            if self._shunned(job.launch) != shunned:
                # What has gone from elsewhere may be its own place.
                return bool(group.wait(_POLL_S))
        return True

    def _conduct(self, job: Attempt) -> Event:
        """Place and start the ranks, pass on what the lead says, and return the last word."""
        wanted, shunned = job.launch.resources, self._shunned(job.launch)
        gang = self._spares.take(wanted, shunned) or self._place(job)
        job.gang = gang
        if not gang.ranks:
            gang.ranks = _make_ranks(gang)
        places = _places(job, gang)
        with job.lock:
            job.check()
            lead, others = _begin(job, gang, self._runner, places)
        waiting = [lead, *others]
        while True:
            job.check()
            ready, _ = ray.wait(waiting, num_returns=1, timeout=_POLL_S, fetch_local=False)
            if not ready:
                continue
            if ready[0] is not lead:
                waiting.remove(ready[0])
                word = heard(ray.get(ready[0]))
                if isinstance(word, Failed):
                    return _root_cause(word, [ref for ref in others if ref in waiting])
                continue
            event = heard(ray.get(next(lead)))
            if isinstance(event, Failed):
                return _root_cause(event, others)
            if isinstance(event, TERMINAL):
                # Who leaves without being asked was told that its node is taken back.
                job.left_in_order = not isinstance(event, Stopped) or job.stop_reason is not None
                return event
            self._emit(job, event)


def _connect(address: str | None, num_cpus: int | None) -> None:
    """Start a local Ray, or join a cluster; raises UnreachableError where that fails."""
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # That leaves what it prints of processes that die, on standard output: we hear of ours.
    ray._private.worker._worker_logs_enabled = False
    try:
        if address is None:
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **common)
            return
        require_answer(address)
        ray.init(address=address, **common)
    except Exception as error:  # a node that is slow to start raises no narrower one
        ray._private.worker._worker_logs_enabled = True
        where = "a local Ray cannot be started" if address is None else f"no Ray at {address!r}"
        raise UnreachableError(
            f"{where}: {first_line(error)}. Check --address, or leave it out for a local Ray"
        ) from error


def _alive() -> dict[str, dict[str, float]]:
    """What every node that is alive has, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _may_do_elsewhere(job: Attempt) -> bool:
    """Whether another attempt comes, and may come to another node."""
    if job.launch.last or job.gang is None:
        return False
    return elsewhere(job.launch.resources, job.gang.nodes, _alive())


def _reserve(resources: ResourceSpec, shunned: Collection[str]) -> Any:
    """Ask for a placement group; it has its place later."""
    where = {"ray.io/node-id": f"!in({','.join(sorted(shunned))})"} if shunned else {}
    return placement_group(
        [wants(resources)] * resources.workers,
        strategy=resources.spread.upper().replace("-", "_"),
        bundle_label_selector=[where] * resources.workers,
    )


def _lost_on(gang: _Gang) -> set[str]:
    """Nodes of the ranks that answer no more: those of a broken gang's others may be well."""
    asked = [rank.size.remote() for rank in gang.ranks]
    if not asked:
        return set()
    answers, lost = ray.wait(asked, num_returns=len(asked), timeout=_LAST_WORDS_S)
    for answer in answers:
        try:
            ray.get(answer)
        except raised.RayError:
            lost.append(answer)
    return {node for node, one in zip(gang.nodes, asked, strict=False) if one in lost}


def _make_ranks(gang: _Gang) -> list[Any]:
    resources, group = gang.resources, gang.group
    actor = ray.remote(Rank)
    return [
        actor.options(
            num_cpus=resources.cpus_per_worker,
            num_gpus=resources.gpus_per_worker,
            resources=dict(resources.custom),
            max_concurrency=2,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=index
            ),
        ).remote()
        for index in range(resources.workers)
    ]


def _begin(
    job: Attempt, gang: _Gang, runner: Runner, places: Sequence[RankPlace]
) -> tuple[Any, list[Any]]:
    """Set every rank to work: the lead's stream of events, and the others' last words."""
    spec = job.launch.spec.model_dump(mode="json")
    lead = gang.ranks[0].run.options(num_returns="streaming").remote(runner, spec, places[0])
    others = [
        rank.follow.remote(runner, spec, place)
        for rank, place in zip(gang.ranks[1:], places[1:], strict=True)
    ]
    job.running = True
    return lead, others


def _places(job: Attempt, gang: _Gang) -> list[RankPlace]:
    """Every rank's surroundings. Raises NodeDiedError where a node is gone already."""
    bundles = placement_group_table(gang.group)["bundles_to_node_id"]
    nodes = gang.nodes = [bundles[index] for index in range(len(gang.ranks))]
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    if not addresses.keys() >= set(nodes):
        raise raised.NodeDiedError("its node was lost before it began")
    port = ray.get(gang.ranks[0].free_port.remote())
    return rank_places(job.name, job.launch, nodes, addresses, port)


def _root_cause(failure: Failed, others: Sequence[Any]) -> Failed:
    """What made a job fail: a rank whose peer has died only says that a connection broke.

    A dead process comes before all and is raised, then a failure with a cause of its own, then
    the given one.
    """
    words = [failure]
    ready: list[Any] = []
    if others:
        ready, _ = ray.wait(list(others), num_returns=len(others), timeout=_LAST_WORDS_S)
    for reference in ready:
        word = heard(ray.get(reference))
        if isinstance(word, Failed):
            words.append(word)
    return next((word for word in words if word.kind not in ("error", "worker-lost")), failure)
