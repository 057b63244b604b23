"""One attempt of a trial as the Ray executor supervises it; knows nothing of Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobs.events import Event, Failed, Stopped
from orchestrator.ports import Launch, Placed, Waiting

WAITING_S = 2.0
"""How long a gang may take to find its place before people hear that it waits, and why."""


class Cancelled(Exception):  # noqa: N818 - a way out of the supervisor, not an error
    """The job was asked to leave before its ranks stood, or is to be killed now."""


@dataclass(kw_only=True)
class Attempt:
    """One attempt under supervision. running: its ranks have begun; left_in_order: and ended."""

    launch: Launch
    gang: Any = None
    running: bool = False
    left_in_order: bool = False
    stop_reason: str | None = None
    kill_at: float = float("inf")
    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """Names the attempt."""
        return f"{self.launch.trial}-{self.launch.attempt}"

    def check(self) -> None:
        """Raise Cancelled once the time to leave softly is over."""
        if time.monotonic() >= self.kill_at:
            raise Cancelled

    def after_kill(self) -> Event:
        """The last word of a job that was not given the time to say one."""
        reason = self.stop_reason or "its executor was closed"
        if not self.running:
            return Stopped(samples=0, reason=reason)
        return Failed(kind="worker-lost", reason=f"killed, it did not leave in time ({reason})")


class Patience:
    """Says that a gang waits for its place, each reason once, and that it has found it."""

    def __init__(self, say: Callable[[Waiting | Placed], None]) -> None:
        self._say, self._told = say, ""
        self._look_at = time.monotonic() + WAITING_S

    def waits(self, why: Callable[[], str]) -> None:
        """Still no place. why: asked now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + WAITING_S
        reason = why()
        if reason != self._told:
            self._told = reason
            self._say(Waiting(reason))

    def placed(self) -> None:
        """The gang has its place."""
        if self._told:
            self._say(Placed())
