"""One controller a study: a lock in its folder, freed by the system when its holder dies."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mir.errors import ClusterError

LOCK_NAME = "controller.lock"
HOLDER_NAME = "controller.json"


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Hold the study in `folder`; raises ClusterError naming the holder where one is alive."""
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ClusterError(
            f"{folder}: another controller runs this study ({_holder(folder)}). "
            "Follow it with `mirsweep status --watch`, or stop it first"
        ) from None
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        (folder / HOLDER_NAME).write_text(json.dumps(holder))
        yield
    finally:
        (folder / HOLDER_NAME).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    """Who holds the study, for people; the lock alone decides."""
    try:
        holder = json.loads((folder / HOLDER_NAME).read_text())
    except (OSError, ValueError):
        return "it has just begun"
    since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
    return f"process {holder['pid']} on {holder['host']} since {since}"
