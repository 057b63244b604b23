"""What a sweep must not leave behind on a cluster: processes of jobs, and placement groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def groups_left() -> list[dict]:
    """Placement groups that still hold resources."""
    from ray.util.placement_group import placement_group_table

    return [group for group in placement_group_table().values() if group["state"] != "REMOVED"]


def gone(pid: str | int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter: reaped between open and read
        return True


def eventually(question: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + within_s
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.1)
