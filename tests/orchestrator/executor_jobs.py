"""Jobs that behave badly, and what the executors' tests do with them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_world
from small_world import FakeJobs, make_sweep

from jobs.events import TERMINAL, Failed, Finished, Started, Step, Stopped
from orchestrator.executors.inline import InlineExecutor
from orchestrator.ports import Launch
from sweeps.spec import ResourceSpec

JOB = make_sweep().base


def slow(spec, place):
    """A job that runs until it is stopped; its first event carries every rank's process id."""
    yield Started(ranks=place.world_size, device=place.device, trainable={"pid": os.getpid()})
    (place.folder / f"rank{place.rank}").write_text(f"{place.local_rank} {os.environ.get('RANK')}")
    (place.folder / f"pid{place.rank}").write_text(str(os.getpid()))
    for n in range(1, 3000):
        yield Step(samples=n, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)
        reason = place.stop_requested()
        if reason:
            (place.folder / "how").write_text(type(reason).__name__)
            yield Stopped(samples=n, reason=reason)
            return
        time.sleep(0.01)
    yield Finished(samples=3000, seconds=1.0)


def deaf(spec, place):
    """A job that does not listen to anybody."""
    yield Started(ranks=1, device="cpu", trainable={"pid": os.getpid()})
    while True:
        time.sleep(0.01)
        yield Step(samples=1, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)


def quick(spec, place):
    """A whole job in no time."""
    return FakeJobs()(spec, place)


def raising(spec, place):
    """A job with a mistake, after its first event."""
    yield Started(ranks=1, device="cpu", trainable={})
    raise KeyError("oops")


def silent(spec, place):
    """A job that ends without a last word."""
    yield Started(ranks=1, device="cpu", trainable={})


def second_rank_fails(spec, place):
    """Rank 1 runs out of memory; rank 0 would wait for it for ever."""
    yield Started(ranks=2, device="cpu", trainable={})
    if place.rank == 1:
        yield Failed(kind="out-of-memory", reason="rank 1 is full")
        return
    while True:
        time.sleep(0.01)


def hoarding(spec, place):
    """A job that leaves 400 MiB behind."""
    import builtins

    yield Started(ranks=1, device="cpu", trainable={"pid": os.getpid()})
    kept = builtins.__dict__.setdefault("hoarded", [])
    kept.append(bytearray(os.urandom(1)) * (400 * 2**20))
    yield Finished(samples=1, seconds=0.0)


class BrokenRank:
    """A rank's actor on a node with another installation."""

    def __init__(self):
        raise ImportError("cannot import name 'Rank' from 'orchestrator'")

    def free_port(self):
        """Never asked."""


def on_a_full_disk(spec, place):
    """A job whose first score finds no space: /dev/full says so to whoever writes to it."""
    for event in FakeJobs()(spec, place):
        yield event
        if isinstance(event, Started):
            (place.folder / "scores.jsonl").unlink(missing_ok=True)
            (place.folder / "scores.jsonl").symlink_to("/dev/full")


JOBS = (slow, deaf, quick, raising, silent, second_rank_fails, hoarding, on_a_full_disk)
RUNNERS = {f.__name__: f for f in JOBS}


def inline(name, **options):
    return InlineExecutor(RUNNERS[name], slots=2, nodes=((2.0, 0.0),))


def under_ray(name, **options):
    from orchestrator.executors.ray_executor import RayExecutor

    return RayExecutor(runner=RUNNERS[name], **options)


@pytest.fixture(scope="module")
def local_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """One Ray of two cores for the tests of a file."""
    from orchestrator.executors.ray_executor import RayExecutor

    from ray import cloudpickle  # isort: skip - the executor sets how ray is imported

    # The processes of a job cannot import test modules.
    for module in (request.module, sys.modules[__name__], small_world):
        cloudpickle.register_pickle_by_value(module)
    owner = RayExecutor(num_cpus=2)
    yield
    owner.close()


def launch(
    folder: Path, trial: int = 0, workers: int = 1, attempt: int = 1, grace: float = 30.0
) -> Launch:
    return Launch(
        trial=trial,
        attempt=attempt,
        spec=JOB,
        resources=ResourceSpec(workers=workers, grace_seconds=grace),
        folder=folder / f"{trial:04d}",
    )


def collect(executor, until, seconds=60.0):
    """Everything said until `until(event)` is true of the newest event."""
    heard, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        for said in executor.wait(0.2):
            heard.append(said)
            if until(said.event):
                return heard
    raise AssertionError(f"nothing of that kind came; heard {heard[-3:]}")


def terminal(event):
    return isinstance(event, TERMINAL)
