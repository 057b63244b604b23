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
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.events import TERMINAL, Event, Failed, Stopped
from mir.errors import UnreachableError
from orchestrator.executors.answer import require_answer
from orchestrator.executors.attempt import Attempt, Cancelled, Patience
from orchestrator.executors.inline import Runner, default_runner
from orchestrator.executors.ray_rank import Rank, RankPlace, heard, rank_places
from orchestrator.placement import CPU, GPU, wants, why_waiting
from orchestrator.ports import Capacity, JobEvent, Launch, Placed, Waiting
from sweeps.spec import ResourceSpec

# Read by ray when it is imported and started.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Otherwise a supervisor that outlives its executor starts a second Ray by its next call.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

logger = logging.getLogger(__name__)

GROWTH = 384 * 2**20
"""Bytes by which a process may have come to occupy more than its first job made it occupy at most:
real jobs leave 60 to 120 MB behind each, so it serves about five of them that are alike."""
_POLL_S = 0.25
_LAST_WORDS_S = 2.0
"""After one rank failed, how long the others may take to say what they know."""

LOST = (RayActorError, WorkerCrashedError, ObjectLostError, NodeDiedError, OutOfMemoryError)
"""What Ray raises when a process or its node is gone, or was killed because its node's memory
ran out: whoever took that memory, a smaller micro-batch would be the wrong answer for good."""


@dataclass(kw_only=True)
class _Gang:
    """Actors in rank order and the placement group that holds their resources.

    spare_since: when its last job left, while it waits for the next.
    size: bytes that its process occupied at most up to the end of its first job, 0 before.
    """

    resources: ResourceSpec
    group: Any
    ranks: list[Any] = field(default_factory=list)
    spare_since: float = 0.0
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
        which then need not import everything anew; 0 for a process a job. Gangs and GPU jobs
        always get fresh processes: theirs hold more state, and their start matters less.
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
        self._spare_s = spare_s
        self._spare: list[_Gang] = []
        self._spare_lock = threading.Lock()
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _connect(address, num_cpus)

    def capacity(self) -> Capacity:
        """What every node that is alive has."""
        return _capacity(node["Resources"] for node in ray.nodes() if node["Alive"])

    def free(self) -> Capacity:
        """What nobody on the cluster has taken at the moment, of every node that is alive."""
        return _capacity(available_resources_per_node().values())

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
        self._free_spare(self._spare_s)
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
            self._free_spare(0.0)
        if self._owns_ray and ray.is_initialized():
            ray.shutdown()

    def _supervise(self, job: Attempt) -> None:
        """One attempt from its placement to its last event, in a thread of its own."""
        try:
            last = self._conduct(job)
        except Cancelled:
            last = job.after_kill()
        except LOST as error:
            last = Failed(kind="worker-lost", reason=_first_line(error))
        except RayError as error:
            last = Failed(kind="error", reason=_first_line(error), detail=str(error))
        except Exception as error:  # noqa: BLE001 - a job that ends unheard holds its slot for ever
            reason = f"{type(error).__name__}: {_first_line(error)}"
            last = Failed(kind="error", reason=reason, detail=traceback.format_exc())
        try:
            if job.gang is not None and not (job.left_in_order and self._keep(job.gang)):
                job.gang.free()
        except Exception:  # a job that ends unheard holds its slot for ever
            logger.warning("job %s: its processes could not be ended", job.name, exc_info=True)
        if self._jobs.get(job.launch.trial) is job:
            del self._jobs[job.launch.trial]
        self._emit(job, last)

    def _keep(self, gang: _Gang) -> bool:
        """Whether the gang now waits for another job."""
        resources = gang.resources
        if resources.workers > 1 or resources.gpus_per_worker or not self._spare_s:
            return False
        try:
            size = ray.get(gang.ranks[0].size.remote(), timeout=_LAST_WORDS_S)
        except (RayError, TimeoutError):
            return False
        gang.size = gang.size or size
        if size > gang.size + GROWTH:
            return False
        gang.spare_since = time.monotonic()
        with self._spare_lock:
            self._spare.append(gang)
        return True

    def _take_spare(self, resources: ResourceSpec) -> _Gang | None:
        with self._spare_lock:
            fitting = [gang for gang in self._spare if gang.resources == resources]
            if not fitting:
                return None
            self._spare.remove(fitting[-1])
            return fitting[-1]

    def _free_spare(self, older_than_s: float) -> None:
        with self._spare_lock:
            limit = time.monotonic() - older_than_s
            old = [gang for gang in self._spare if gang.spare_since <= limit]
            self._spare = [gang for gang in self._spare if gang.spare_since > limit]
        for gang in old:
            gang.free()

    def _emit(self, job: Attempt, event: Event | Waiting | Placed) -> None:
        launch = job.launch
        self._events.put(JobEvent(trial=launch.trial, attempt=launch.attempt, event=event))

    def _place(self, job: Attempt) -> _Gang:
        """A placement group for the whole gang, waited for as long as it takes.

        While it is pending, a cluster that grows by demand sees it.
        """
        job.check()
        resources = job.launch.resources
        bundles = [wants(resources)] * resources.workers
        strategy = resources.spread.upper().replace("-", "_")
        group = placement_group(bundles, strategy=strategy)
        patience = Patience(lambda said: self._emit(job, said))
        try:
            while not group.wait(_POLL_S):
                job.check()
                patience.waits(lambda: why_waiting(self.free(), resources))
        except BaseException:
            remove_placement_group(group)
            raise
        patience.placed()
        return _Gang(resources=resources, group=group)

    def _conduct(self, job: Attempt) -> Event:
        """Place and start the ranks, pass on what the lead says, and return the last word."""
        gang = self._take_spare(job.launch.resources) or self._place(job)
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
    try:
        if address is None:
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **common)
            return
        require_answer(address)
        ray.init(address=address, **common)
    except Exception as error:  # a node that is slow to start raises no narrower one
        where = "a local Ray cannot be started" if address is None else f"no Ray at {address!r}"
        raise UnreachableError(
            f"{where}: {_first_line(error)}. Check --address, or leave it out for a local Ray"
        ) from error


def _capacity(nodes: Iterable[Mapping[str, float]]) -> Capacity:
    found = [dict(node) for node in nodes]
    pairs = tuple((node.pop(CPU, 0.0), node.pop(GPU, 0.0)) for node in found)
    return Capacity(nodes=pairs, custom=tuple(found))


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
    nodes = [bundles[index] for index in range(len(gang.ranks))]
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    if not addresses.keys() >= set(nodes):
        raise NodeDiedError("its node was lost before it began")
    port = ray.get(gang.ranks[0].free_port.remote())
    return rank_places(job.name, job.launch, nodes, addresses, port)


def _root_cause(failure: Failed, others: Sequence[Any]) -> Failed:
    """What made a job fail: a rank whose peer has died only says that a connection broke.

    A dead process comes before all, then a failure with a cause of its own, then the given one.
    """
    words = [failure]
    ready: list[Any] = []
    if others:
        ready, _ = ray.wait(list(others), num_returns=len(others), timeout=_LAST_WORDS_S)
    for reference in ready:
        try:
            word = heard(ray.get(reference))
        except LOST as error:
            return Failed(kind="worker-lost", reason=_first_line(error))
        if isinstance(word, Failed):
            words.append(word)
    return next((word for word in words if word.kind not in ("error", "worker-lost")), failure)


def _first_line(error: BaseException) -> str:
    """What went wrong; Ray puts its own address of the actor before what the actor raised."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {_first_line(error.cause)}"
    return (str(error) or type(error).__name__).strip().splitlines()[0]
