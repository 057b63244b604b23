"""Runs one job on this machine without a cluster: in this process, or as a gang of processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.downstream.run import run_any
from jobs.events import TERMINAL, Event, Failed
from jobs.place import Place
from jobs.spec.downstream import AnyJob

_POLL_S = 0.2
# How long ranks may take to leave after the first terminal event.
_GRACE_S = 10.0


def run_local(
    spec: AnyJob,
    workers: int,
    folder: Path,
    on_event: Callable[[Event], None],
    *,
    device: str = "cpu",
) -> Event:
    """Run `spec` on `workers` ranks here and return the terminal event.

    on_event: hears every event of rank 0, the terminal one included.
    The first Ctrl-C or SIGTERM asks for a checkpoint and a soft stop; a second Ctrl-C interrupts.
    One worker runs in this process, several in processes of their own, which share the CPUs.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    with _interrupts() as stop:
        if workers == 1:
            place = Place(folder=folder, device=device, threads=threads, stop_requested=stop)
            return _relay(run_any(spec, place), on_event)
        return _gang(spec, workers, folder, on_event, stop, device, threads)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _relay(events: Iterator[Event], on_event: Callable[[Event], None]) -> Event:
    event: Event | None = None
    for event in events:
        on_event(event)
    assert event is not None and isinstance(event, TERMINAL)
    return event


def _gang(
    spec: AnyJob,
    workers: int,
    folder: Path,
    on_event: Callable[[Event], None],
    stop: Callable[[], str | None],
    device: str,
    threads: int,
) -> Event:
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    stopping = context.Event()
    port = free_port()
    ranks: list[BaseProcess] = []
    try:
        for rank in range(workers):
            place = Place(
                folder=folder, rank=rank, world_size=workers, local_rank=rank,
                master_port=port, device=device, threads=threads,
            )  # fmt: skip
            process: BaseProcess = context.Process(
                target=_rank, args=(spec, place, stopping, told), daemon=True
            )
            process.start()
            ranks.append(process)
        return _listen(ranks, told, stop, stopping, on_event)
    finally:
        for process in ranks:
            process.join(_GRACE_S)
            if process.is_alive():
                process.kill()


def _listen(
    ranks: list[BaseProcess],
    told: Any,
    stop: Callable[[], str | None],
    stopping: Any,
    on_event: Callable[[Event], None],
) -> Event:
    """Pass on rank 0's events until it ends, or any rank fails or is gone without a word."""
    ended: set[int] = set()
    while True:
        if stop() is not None:
            stopping.set()
        try:
            rank, event = told.get(timeout=_POLL_S)
        except queue.Empty:
            lost = [
                r for r, process in enumerate(ranks) if not process.is_alive() and r not in ended
            ]
            if not lost:
                continue
            code = ranks[lost[0]].exitcode
            rank, event = (
                0,
                Failed(kind="worker-lost", reason=f"rank {lost[0]} ended with exit code {code}"),
            )
        if isinstance(event, TERMINAL):
            ended.add(rank)
        if rank == 0 or isinstance(event, Failed):
            on_event(event)
            if isinstance(event, Failed):
                _kill(ranks)
            if isinstance(event, TERMINAL):
                final: Event = event
                return final


def _kill(ranks: list[BaseProcess]) -> None:
    """A gang without one of its ranks waits for it for ever."""
    for process in ranks:
        process.kill()


def _rank(spec: AnyJob, place: Place, stopping: Any, told: Any) -> None:
    """One rank's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent acts

    def stop_requested() -> str | None:
        return "interrupted" if stopping.is_set() else None

    here = Place(**{**vars(place), "stop_requested": stop_requested})
    for event in run_any(spec, here):
        told.put((place.rank, event))


@contextmanager
def _interrupts() -> Iterator[Callable[[], str | None]]:
    """Within: the first SIGINT or SIGTERM becomes a reason to stop softly."""
    reasons: list[str] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's form
        if reasons and number == signal.SIGINT:
            raise KeyboardInterrupt
        reasons.append("interrupted" if number == signal.SIGINT else "asked to end (SIGTERM)")

    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: reasons[0] if reasons else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
