"""A study as it changes, seen from another process: reads only what was written since last time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mir.errors import DataError
from orchestrator.eventlog import LOG_NAME, read_from
from orchestrator.fold import advance
from orchestrator.hindsight import in_hindsight
from orchestrator.lease import HOLDER_NAME, STALE_S, process_of, read_holder
from orchestrator.state import SweepView

LOOK_S = 1.0


class Pulse:
    """Whether a study's controller lives, as far as this host can tell.

    A process on this host is asked for, by when it began: its number alone may be another's by
    now. Where that is not known or not shown, and on another host, the heartbeat tells: who stood
    still for `STALE_S` while we looked is dead.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HOLDER_NAME
        self._beat: object = None
        self._since = 0.0

    @property
    def left(self) -> bool:
        """Whether the last controller took its leave, rather than died."""
        return not self._path.exists()

    def alive(self) -> bool:
        """A first look believes a heartbeat."""
        holder = read_holder(self._path)
        if holder is None:
            return False
        if holder["host"] == socket.gethostname():
            running = _running(holder["pid"])
            if running is False:
                return False
            known, found = holder.get("process"), process_of(holder["pid"])
            if known is not None and (found is not None or running):
                return bool(found == known)
        beat = (holder.get("token"), holder.get("beat"))
        now = time.monotonic()
        if beat != self._beat:
            self._beat, self._since = beat, now
        return now - self._since < STALE_S


def _running(pid: int) -> bool | None:
    """None for another user's process, which a /proc mounted with hidepid does not show."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return None
    return True


class Follower:
    """Folds a study's log as it grows."""

    def __init__(self, folder: Path) -> None:
        self.pulse = Pulse(folder)
        self._path = folder / LOG_NAME
        self._view: SweepView | None = None
        self._next = self._offset = 0

    def look(self) -> SweepView:
        """The study now. Raises DataError while its log is empty."""
        if self._path.stat().st_size < self._offset:  # it was mended meanwhile
            self._view, self._next, self._offset = None, 0, 0
        for record, end in read_from(self._path, self._offset, self._next):
            self._view = advance(self._view, record)
            self._next, self._offset = record.n + 1, end
        if self._view is None:
            raise DataError(f"{self._path}: the study's log is empty. Run `mirsweep run` again")
        return in_hindsight(replace(self._view, trials=dict(self._view.trials)))

    def views(self) -> Iterator[SweepView]:
        """The study once a second, until it has ended or nobody runs it; at least once."""
        while True:
            # Asked first: what its controller wrote last is then in the view that comes last.
            alive = self.pulse.alive()
            view = self.look()
            yield view
            if view.ended is not None or not alive:
                return
            time.sleep(LOOK_S)
