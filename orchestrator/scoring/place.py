"""Where and how precisely a model is scored: device, number type, batch size, free memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mir.errors import ConfigError
from mir.memory import Free

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_UNLIMITED = 2**62


@contextmanager
def ranks(device: torch.device) -> Iterator[tuple[int, int]]:
    """(rank, number of ranks) as a launcher such as torchrun says; one rank without a launcher."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield 0, 1
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), count
    finally:
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """`auto` takes this rank's GPU if there is one. Raises ConfigError for what is not here."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{local}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device: {name!r} is no device; use auto, cpu or cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device: {name} asked for, {torch.cuda.device_count()} CUDA devices are here; "
            "use --device cpu or another number"
        )
    return device


def choose_dtype(name: str, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """`auto` keeps the stored type, but takes float32 for float16 on the CPU, which is slow in it.

    Raises ConfigError for an unknown name.
    """
    if name == "auto":
        slow = stored == torch.float16 and device.type == "cpu"
        return torch.float32 if slow else stored
    if name not in DTYPES:
        raise ConfigError(f"--dtype: {name!r} is unknown; use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def choose_batch_size(wanted: str, config: Any, length: int, free: Free, itemsize: int) -> int:
    """`auto` fills a quarter of what is free, at most 32 pairs (8 on the CPU).

    A sequence of T tokens is taken to need T x D x 24 numbers and, where attention is not fused,
    heads x T x T floats. length: T. Raises ConfigError for what is no number above 0.
    """
    if wanted != "auto":
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ConfigError(f"--batch-size: {wanted!r} is neither auto nor a number above 0")
        return int(wanted)
    heads = int(getattr(config, "num_attention_heads", 1))
    need = length * int(config.hidden_size) * 24 * itemsize + heads * length**2 * 4
    most = 32 if free.host is not None else 8
    return max(1, min(most, free.device // (4 * need)))


def free_memory(device: torch.device) -> Free:
    """Bytes free for this rank, on the device and on the host it shares with other ranks."""
    host = _free_host() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda":
        return Free(device=host, host=None)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Free(device=torch.cuda.mem_get_info(device)[0] + unused, host=host)


def _free_host() -> int:
    free = _UNLIMITED
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024 * int(line.split()[1])
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    # A container's own limit; its page cache counts as used, so this errs on the safe side.
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(0, free)
