"""Which gangs fit a cluster, now or ever: pure arithmetic on capacities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal

from mir.errors import ConfigError
from orchestrator.ports import Capacity
from sweeps.spec import ResourceSpec

_EPSILON = 1e-9  # fractions of a GPU add up with rounding
CPU, GPU = "CPU", "GPU"
Node = dict[str, float]


def wants(resources: ResourceSpec) -> Node:
    """What one worker needs, by the cluster's names."""
    found = {CPU: resources.cpus_per_worker}
    if resources.gpus_per_worker:
        found[GPU] = resources.gpus_per_worker
    return {**found, **resources.custom}


def capacity_of(nodes: Iterable[Mapping[str, float]]) -> Capacity:
    """What nodes have, from all that each has by name."""
    found = [dict(node) for node in nodes]
    pairs = tuple((node.pop(CPU, 0.0), node.pop(GPU, 0.0)) for node in found)
    return Capacity(nodes=pairs, custom=tuple(found))


def nodes_of(capacity: Capacity) -> list[Node]:
    """Every node with all that it has."""
    custom = capacity.custom or ({},) * len(capacity.nodes)
    return [
        {CPU: cpus, GPU: gpus, **more}
        for (cpus, gpus), more in zip(capacity.nodes, custom, strict=True)
    ]


def _workers_on(node: Node, resources: ResourceSpec) -> int:
    shares = (node.get(name, 0.0) / each for name, each in wants(resources).items())
    return floor(min(shares) + _EPSILON)


def job_slots(capacity: Capacity, resources: ResourceSpec) -> int:
    """How many jobs can run at once on an empty cluster, `max_concurrent` included; 0 for none."""
    each = [_workers_on(node, resources) for node in nodes_of(capacity)]
    slots = _gangs(each, resources)
    limits = (capacity.max_jobs, resources.max_concurrent)
    return min([slots, *(limit for limit in limits if limit is not None)])


def _gangs(each: Sequence[int], resources: ResourceSpec) -> int:
    """How many equal gangs fit nodes that hold so many workers each."""
    match resources.spread:
        case "strict-pack":
            return sum(count // resources.workers for count in each)
        case "strict-spread":
            gangs = sum(each) // resources.workers
            while sum(min(count, gangs) for count in each) < gangs * resources.workers:
                gangs -= 1
            return gangs
        case "pack" | "spread":
            return sum(each) // resources.workers


def fits(free: Capacity, gangs: Sequence[ResourceSpec]) -> bool:
    """Whether gangs of different sizes fit side by side, seated one after the other."""
    nodes = nodes_of(free)
    return all(_seated(nodes, gang) for gang in gangs)


def left(capacity: Capacity, gangs: Iterable[ResourceSpec]) -> Capacity:
    """What is free beside these gangs, as far as they can be seated."""
    nodes = nodes_of(capacity)
    for gang in gangs:
        _seated(nodes, gang)
    return Capacity(
        nodes=tuple((node.pop(CPU), node.pop(GPU)) for node in nodes), custom=tuple(nodes)
    )


def _seated(nodes: list[Node], gang: ResourceSpec) -> bool:
    """Take a gang's resources from the nodes; False, with nothing taken, where there is no room."""
    places = list(_places(nodes, gang))
    if len(places) < gang.workers:
        return False
    for node in places:
        for name, each in wants(gang).items():
            node[name] -= each
    return True


def _places(nodes: list[Node], gang: ResourceSpec) -> Iterator[Node]:
    """A node for every worker, as far as there are any."""
    rooms = sorted(((_workers_on(node, gang), i) for i, node in enumerate(nodes)), reverse=True)
    left = gang.workers
    if gang.spread == "strict-pack":
        rooms = sorted(room for room in rooms if room[0] >= left)[:1]
    for room, i in rooms:
        count = min(room, left, 1 if gang.spread == "strict-spread" else left)
        left -= count
        yield from [nodes[i]] * count


def why_not(capacity: Capacity, resources: ResourceSpec) -> str | None:
    """Why one job does not fit even on the empty cluster; None where it fits."""
    if job_slots(capacity, resources) > 0:
        return None
    nodes = nodes_of(capacity)
    for name, wanted in wants(resources).items():
        most = _most(nodes, name)
        if wanted > most + _EPSILON:
            return (
                f"a worker needs {wanted:g} {_plural(name)} on one node, largest node has {most:g}"
            )
    room = _room(capacity, resources)
    return (
        f"a job needs {resources.workers} workers of {_each(resources)} each{_how(resources)}, the "
        f"cluster has room for {room} (largest node: {_most(nodes, CPU):g} CPUs, "
        f"{_most(nodes, GPU):g} GPUs)"
    )


def why_waiting(free: Capacity, resources: ResourceSpec) -> str:
    """Why one job does not fit beside what runs, e.g. 'needs 4 GPUs on one node, 2 free'."""
    nodes = nodes_of(free)
    for name, wanted in wants(resources).items():
        most = _most(nodes, name)
        if wanted > most + _EPSILON:
            return f"needs {wanted:g} {_plural(name)} on one node, {most:g} free"
    room, workers = _room(free, resources), resources.workers
    count = "1 worker" if workers == 1 else f"{workers} workers"
    if room >= workers:
        return "the cluster has room and has not placed it yet"
    return f"needs {count} of {_each(resources)}{_how(resources)}, room for {room} free"


@dataclass(frozen=True)
class Fit:
    """Whether a job fits a cluster: now, later (when others end) or never; reason: why not now."""

    when: Literal["now", "later", "never"]
    reason: str = ""


def fit(capacity: Capacity, free: Capacity, resources: ResourceSpec) -> Fit:
    """When one job of these resources fits. free: what is not taken at the moment."""
    if (never := why_not(capacity, resources)) is not None:
        if resources.autoscale:
            return Fit("later", f"once the cluster has grown: {never}")
        return Fit("never", never)
    if why_not(free, resources) is not None:
        return Fit("later", why_waiting(free, resources))
    return Fit("now")


def require_fit(capacity: Capacity, resources: ResourceSpec) -> None:
    """Raise ConfigError where a job of these resources can never run on the cluster."""
    reason = why_not(capacity, resources)
    if reason is not None and not resources.autoscale:
        raise ConfigError(f"resources: {reason}. Ask for less or use a larger cluster")


def _most(nodes: Sequence[Node], name: str) -> float:
    return max((node.get(name, 0.0) for node in nodes), default=0.0)


def _room(capacity: Capacity, resources: ResourceSpec) -> int:
    """How many workers of one job would find a place."""
    each = [_workers_on(node, resources) for node in nodes_of(capacity)]
    if resources.spread == "strict-spread":
        return sum(count > 0 for count in each)
    return max(each, default=0) if resources.spread == "strict-pack" else sum(each)


def _each(resources: ResourceSpec) -> str:
    return " and ".join(f"{n:g} {_plural(name)}" for name, n in wants(resources).items())


def _plural(name: str) -> str:
    return f"{name}s" if name in (CPU, GPU) else name


def _how(resources: ResourceSpec) -> str:
    where = {"strict-pack": ", all on one node", "strict-spread": ", each on another node"}
    return where.get(resources.spread, "")
