"""Ctrl-C and SIGTERM as a question that the loop asks, instead of an exception anywhere in it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """What was asked for: the name of the signal, None as long as there was none."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler; the second signal raises KeyboardInterrupt at once."""
        if self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


@contextmanager
def listening() -> Iterator[Interrupt]:
    """Catch SIGINT and SIGTERM while the block runs; only the main thread can, others get none."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
