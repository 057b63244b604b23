"""A thread that does things in order, batches what can be batched, and outlasts an outage.

Nothing that a caller hands over ever blocks or raises in the caller.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")

BATCH = 500
BATCH_S = 1.0
BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses between tries; the last one again and again, for as long as the store stays away."""
GRACE_S = 10.0
"""How long the end of the thread is waited for beyond what a store was given."""

logger = logging.getLogger(__name__)


class TryLaterError(Exception):
    """What an act raises when trying again later may help."""


class Background(Generic[Item]):
    """Acts are done one by one; items are collected and written together, in order with the acts.

    write: stores a batch of items. An act or a write that raises TryLaterError is tried again
    with back-off until it succeeds; any other exception is logged and the act left out.
    name: of the thread, and what its warnings begin with.
    """

    def __init__(self, write: Callable[[Sequence[Item]], None], name: str) -> None:
        self._write = write
        self._name = name
        self._queue: queue.Queue[Callable[[], None] | Item | None] = queue.Queue()
        self._items: list[Item] = []
        self._since = 0.0
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._given_up = 0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, act: Callable[[], None]) -> None:
        """Do this after everything that was handed over before."""
        self._queue.put(act)

    def add(self, item: Item) -> None:
        """Write this item with others, within a second or so."""
        self._queue.put(item)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was handed over is done; False if it took too long."""
        done = threading.Event()
        self.do(done.set)
        return done.wait(timeout_s)

    def close(self, timeout_s: float) -> int:
        """Do what is left for at most so long, then end the thread; safe to call twice.

        Returns how many acts and items were left undone.
        """
        if self._thread.is_alive():
            self._give_up_at = time.monotonic() + timeout_s
            self._closing.set()
            self._queue.put(None)
            self._thread.join(timeout_s + GRACE_S)
        if self._thread.is_alive():  # it hangs in an act, which counts as undone
            return self._given_up + self._queue.qsize()
        return self._given_up

    def _work(self) -> None:
        while True:
            try:
                given = self._queue.get(timeout=BATCH_S / 2)
            except queue.Empty:
                self._write_items()
                continue
            if given is None:
                self._write_items()
                return
            if callable(given):
                self._write_items()
                self._persist(given)
                continue
            if not self._items:
                self._since = time.monotonic()
            self._items.append(given)
            if len(self._items) >= BATCH or time.monotonic() - self._since >= BATCH_S:
                self._write_items()

    def _write_items(self) -> None:
        items, self._items = self._items, []
        if items:
            self._persist(lambda: self._write(items), len(items))

    def _persist(self, act: Callable[[], None], size: int = 1) -> None:
        attempt = 0
        while True:
            if self._given_up:  # a dead store would take its time over each of the others, too
                self._given_up += size
                return None
            try:
                return act()
            except TryLaterError as error:
                if time.monotonic() >= self._give_up_at:
                    self._given_up += size
                    return None
                if attempt == 0:
                    logger.warning("%s: %s; training goes on, trying again", self._name, error)
                pause = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                attempt += 1
            except Exception as error:  # noqa: BLE001 - tracking must never end a sweep
                logger.warning("%s: left out what the store refuses: %s", self._name, error)
                return None
            # While closing, a pause would only eat the time that is left.
            self._closing.wait(pause) if not self._closing.is_set() else time.sleep(0.2)
