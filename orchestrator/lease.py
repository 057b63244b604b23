"""One controller a study: a lock in its folder, and a heartbeat for where locks do not reach.

The system frees the lock when its holder dies. Some network file systems do not carry locks to
other hosts; there the holder's heartbeat tells whether it lives: a counter that another host
sees standing still. Clocks are not compared. Who stood still itself (a laptop's lid, SIGSTOP) looks
who holds the study before it writes again.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mir.errors import ClusterError

LOCK_NAME = "controller.lock"
HOLDER_NAME = "controller.json"
BEAT_S = 2.0
STALE_S = 15.0
"""A holder on another host whose heartbeat stands still for so long is dead."""
_LOOK_S = 0.2
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the host sleeps, which Linux's monotonic clock does not."""

logger = logging.getLogger(__name__)


class Lease:
    """A study that is held. A thread keeps its heartbeat going."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HOLDER_NAME
        self._token = uuid.uuid4().hex
        self._process = process_of(os.getpid())
        self._since = time.time()
        self._taken = False
        self._sure = time.clock_gettime(_CLOCK)
        self._over = threading.Event()
        self._write(0)
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ClusterError if another controller took this one for dead and holds the study.

        Costs a look at the clock; at the holder's file only where this one stood still for so long
        that another may have.
        """
        if self._taken or (self._still() and not self._mine()):
            other = _words(read_holder(self._path))
            raise ClusterError(
                f"{self._path.parent}: another controller has taken this study over ({other}), "
                "because this one stood still. Nothing is lost"
            )

    def close(self) -> None:
        """End the heartbeat and take the holder's file away, if it is this one's."""
        self._over.set()
        self._thread.join()
        if _token(self._path) == self._token:
            self._path.unlink(missing_ok=True)

    def _still(self) -> bool:
        """Whether the last look is so long ago that another may have taken the study over."""
        return time.clock_gettime(_CLOCK) - self._sure > STALE_S / 2

    def _mine(self) -> bool:
        """Look who holds the study. A missing file means another that has left, after a standstill.

        Once it is another's, it stays so.
        """
        began, still = time.clock_gettime(_CLOCK), self._still()
        found = _token(self._path)
        if found != self._token and (still or found is not None):
            self._taken = True
        self._sure = began
        return not self._taken

    def _beat(self) -> None:
        beat = 0
        while not self._over.wait(BEAT_S):
            if not self._mine():
                return
            beat += 1
            with suppress(OSError):  # a full disk ends no lease that the lock still holds
                self._write(beat)

    def _write(self, beat: int) -> None:
        holder = {
            "pid": os.getpid(),
            "process": self._process,
            "host": socket.gethostname(),
            "since": self._since,
            "token": self._token,
            "beat": beat,
        }
        aside = self._path.with_suffix(f".{self._token}")
        try:
            aside.write_text(json.dumps(holder))
            # Stopped since it last looked, it takes nothing back from who has taken over meanwhile.
            if beat == 0 or not self._still() or self._mine():
                aside.replace(self._path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def lease(folder: Path, wait_s: float = 0.0) -> Iterator[Lease]:
    """Hold the study in `folder`, after waiting for its holder to leave or die for at most so long.

    Raises ClusterError naming the holder where one is alive when the time is over.
    """
    deadline = time.monotonic() + wait_s
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _wait_for(lock, folder, wait_s)
    try:
        while _alive_elsewhere(folder / HOLDER_NAME):
            if time.monotonic() >= deadline:
                raise _held(folder)
        held = Lease(folder)
        try:
            yield held
        finally:
            held.close()
    finally:
        lock.release()


def _wait_for(lock: FileLock, folder: Path, wait_s: float) -> None:
    """Until the holder leaves or dies; raises ClusterError where it does neither in time."""
    if wait_s > 0:
        holder = read_holder(folder / HOLDER_NAME)
        logger.warning("%s: waiting for another controller (%s)", folder, _words(holder))
    try:
        lock.acquire(timeout=min(wait_s, threading.TIMEOUT_MAX))
    except Timeout:
        raise _held(folder) from None


def _alive_elsewhere(path: Path) -> bool:
    """Whether a holder on another host gives a sign of life; takes a while to say no."""
    first = read_holder(path)
    if first is None or first["host"] == socket.gethostname():
        return False
    deadline = time.monotonic() + STALE_S
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        now = read_holder(path)
        if now is None:
            return False
        if (now["token"], now["beat"]) != (first["token"], first["beat"]):
            return True
    logger.warning("%s: %s has died; going on from where it was", path.parent, _words(first))
    return False


def _held(folder: Path) -> ClusterError:
    holder = _words(read_holder(folder / HOLDER_NAME))
    return ClusterError(
        f"{folder}: another controller runs this study ({holder}). Follow it with `mirsweep "
        "attach`, stop it, or wait for it with `mirsweep run --wait SECONDS`"
    )


def read_holder(path: Path) -> dict[str, Any] | None:
    """What a holder's file says, None where there is none."""
    try:
        holder: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return holder


def process_of(pid: int) -> str | None:
    """What tells a process of this host from all others that ever have its number.

    None where it does not run, or where the system does not say (it has no /proc).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else f"{boot} {fields[18]}"  # when it began, in ticks since boot


def _token(path: Path) -> str | None:
    holder = read_holder(path)
    return None if holder is None else str(holder.get("token"))


def _words(holder: dict[str, Any] | None) -> str:
    """Who holds the study, for people."""
    if holder is None:
        return "it has just begun"
    since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
    return f"process {holder['pid']} on {holder['host']} since {since}"
