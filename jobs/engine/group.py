"""The process group of a job's ranks, and what they tell each other through it."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from jobs.place import Place
from mir.errors import ClusterError

_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def join(place: Place) -> None:
    """Make this process the rank that `place` says, or reuse the group that it is already in.

    A group is never destroyed: DeepSpeed keeps references to it, and a second group in the same
    process fails. So a process may run job after job, as long as the number of ranks is the same.

    Raises ClusterError if the process belongs to a group of another size.
    """
    # DeepSpeed reads these while it is imported or initialised.
    os.environ["DS_ACCELERATOR"] = place.device
    os.environ["RANK"] = str(place.rank)
    os.environ["LOCAL_RANK"] = str(place.local_rank)
    os.environ["WORLD_SIZE"] = str(place.world_size)
    torch.set_num_threads(place.threads)
    if place.device == "cuda":
        torch.cuda.set_device(place.local_rank)
    if dist.is_initialized():
        if (dist.get_rank(), dist.get_world_size()) != (place.rank, place.world_size):
            raise ClusterError(
                f"this process is rank {dist.get_rank()} of {dist.get_world_size()} and cannot "
                f"become rank {place.rank} of {place.world_size}: start a process for each job"
            )
        return
    where: dict[str, Any] = {"init_method": f"tcp://{place.master_addr}:{place.master_port}"}
    if place.world_size == 1:
        where = {
            "store": torch._C._distributed_c10d.HashStore()
        }  # no port to choose, none to collide on
    dist.init_process_group(
        _BACKENDS[place.device], rank=place.rank, world_size=place.world_size, **where
    )


def device_of(place: Place) -> torch.device:
    """The device that a rank computes on."""
    return torch.device("cpu") if place.device == "cpu" else torch.device("cuda", place.local_rank)


def gather_objects(value: Any) -> list[Any]:
    """Every rank's picklable value, in rank order, on every rank."""
    values: list[Any] = [None] * dist.get_world_size()
    if len(values) == 1:
        return [value]
    dist.all_gather_object(values, value)
    return values


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Element-wise sum over ranks, in place; the same on every rank."""
    if dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values
