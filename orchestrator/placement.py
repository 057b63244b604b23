"""Which gangs fit a cluster, now or ever: pure arithmetic on capacities."""

from __future__ import annotations

from math import floor, inf

from mir.errors import ConfigError
from orchestrator.ports import Capacity
from sweeps.spec import ResourceSpec

_EPSILON = 1e-9  # fractions of a GPU add up with rounding


def _workers_on(node: tuple[float, float], resources: ResourceSpec) -> int:
    cpus, gpus = node
    by_gpu = inf
    if resources.gpus_per_worker > 0:
        by_gpu = gpus / resources.gpus_per_worker
    return floor(min(cpus / resources.cpus_per_worker, by_gpu) + _EPSILON)


def job_slots(capacity: Capacity, resources: ResourceSpec) -> int:
    """How many jobs can run at once on an empty cluster, `max_concurrent` included; 0 for none."""
    workers = sum(_workers_on(node, resources) for node in capacity.nodes)
    slots = workers // resources.workers
    limits = (capacity.max_jobs, resources.max_concurrent)
    return min([slots, *(limit for limit in limits if limit is not None)])


def why_not(capacity: Capacity, resources: ResourceSpec) -> str | None:
    """Why one job does not fit even on the empty cluster; None where it fits."""
    if job_slots(capacity, resources) > 0:
        return None
    most_cpus = max((cpus for cpus, _ in capacity.nodes), default=0.0)
    most_gpus = max((gpus for _, gpus in capacity.nodes), default=0.0)
    for name, wanted, most in (
        ("GPUs", resources.gpus_per_worker, most_gpus),
        ("CPUs", resources.cpus_per_worker, most_cpus),
    ):
        if wanted > most + _EPSILON:
            return f"a worker needs {wanted:g} {name} on one node, largest node has {most:g}"
    room = sum(_workers_on(node, resources) for node in capacity.nodes)
    gpus = resources.gpus_per_worker
    each = f"{resources.cpus_per_worker:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
    return (
        f"a job needs {resources.workers} workers of {each} each, the cluster has room for {room} "
        f"(largest node: {most_cpus:g} CPUs, {most_gpus:g} GPUs)"
    )


def require_fit(capacity: Capacity, resources: ResourceSpec) -> None:
    """Raise ConfigError where a job of these resources can never run on the cluster."""
    reason = why_not(capacity, resources)
    if reason is not None:
        raise ConfigError(f"resources: {reason}. Ask for less or use a larger cluster")
