"""Where one rank of a job runs. Handed in by an executor; nothing here changes the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Dismissal(str):
    """A reason to leave for good: nobody will go on from there, so nothing is saved."""

    __slots__ = ()


def _never() -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Place:
    """One rank's surroundings.

    folder: the trial's folder (checkpoints, log), shared by all ranks.
    device: 'cpu' or 'cuda' (each rank then sees one device as cuda:local_rank).
    threads: CPU threads of this rank.
    shared: folder that all jobs of a study share, None for a job of its own.
    stop_requested: polled at every step boundary on every rank; the first non-None answer of any
        rank is the reason for which all ranks leave together, with a checkpoint unless it is a
        `Dismissal`.
    """

    folder: Path
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 0
    device: str = "cpu"
    threads: int = 1
    shared: Path | None = None
    stop_requested: Callable[[], str | None] = _never
