"""Faults of a real cluster, done to jobs at a known moment, and how long the sweep takes over them.

Used by the tests and by the benchmark, which says how long each took.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import small_world

from jobs.events import Checkpointed, Event, Started, Stopped
from jobs.place import Place
from jobs.spec import JobSpec
from orchestrator.ports import Executor


def gang(spec: JobSpec, place: Place) -> Iterator[Event]:
    """A job of several ranks that says where each is; all leave when any is asked, as real ones.

    The ranks agree by a file in the trial's folder, real ones by an all-reduce.
    """
    # A first attempt does not outrun its fault; real ranks would wait for a dead one.
    first = not (place.folder / f"pid{place.rank}").exists()
    (place.folder / f"pid{place.rank}").write_text(f"{os.getpid()} {os.getppid()}")
    while not all((place.folder / f"pid{rank}").exists() for rank in range(place.world_size)):
        time.sleep(0.01)
    asked = place.folder / "asked"

    def stop() -> str | None:
        reason = place.stop_requested()
        if reason is not None:
            asked.write_text(reason)
        return asked.read_text() if asked.exists() else None

    mine = place.folder if place.rank == 0 else place.folder / f"rank{place.rank}"
    mine.mkdir(exist_ok=True)
    jobs = small_world.FakeJobs()
    number = int(place.folder.name)
    for event in jobs._events(number, spec, Place(folder=mine, stop_requested=stop)):
        time.sleep(1.0 if first and getattr(event, "samples", 0) > 32 else 0.02)
        if isinstance(event, Stopped):
            asked.unlink(missing_ok=True)
        yield event


def process_of(folder: Path, rank: int) -> tuple[int, int]:
    """A rank's process and its raylet's, as it wrote them down."""
    own, parent = (folder / f"pid{rank}").read_text().split()
    return int(own), int(parent)


def kill_follower(folder: Path) -> None:
    os.kill(process_of(folder, 1)[0], signal.SIGKILL)


def kill_lead(folder: Path) -> None:
    os.kill(process_of(folder, 0)[0], signal.SIGKILL)


def take_back(folder: Path) -> None:
    """A preemption notice, as a batch system sends it to all processes of a node."""
    for rank in (0, 1):
        os.kill(process_of(folder, rank)[0], signal.SIGTERM)


def lose_node(folder: Path) -> None:
    """The node is gone from one moment to the next: its raylet and all that it had started."""
    raylet = process_of(folder, 0)[1]
    assert "raylet" in Path(f"/proc/{raylet}/cmdline").read_text()
    for process in (raylet, *children_of(raylet)):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def children_of(parent: int) -> list[int]:
    """Processes that another one started and that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


FAULTS: dict[str, Callable[[Path], None]] = {
    "SIGKILL of a rank": kill_follower,
    "SIGKILL of the lead rank": kill_lead,
    "preemption notice": take_back,
    "loss of a node": lose_node,
}


@dataclass
class Faulty:
    """An Executor that does one fault to each trial, in order of numbers, at its second checkpoint.

    seconds: from each fault until the trial's next attempt trains, by the fault's name.
    """

    inner: Executor
    trials: Path
    plan: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def wait(self, timeout_s: float):
        events = self.inner.wait(timeout_s)
        for said in events:
            if said.trial >= len(self.plan):
                continue
            name = self.plan[said.trial]
            if isinstance(said.event, Started) and said.trial in self.done:
                self.seconds.setdefault(name, time.monotonic() - self.done[said.trial])
            second = isinstance(said.event, Checkpointed) and said.event.samples >= 32
            if second and said.trial not in self.done:
                self.done[said.trial] = time.monotonic()
                FAULTS[name](self.trials / f"{said.trial:04d}")
        return events
