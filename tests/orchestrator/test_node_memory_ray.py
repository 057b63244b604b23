"""What a job says whose processes Ray kills because the memory of their node runs out."""

from __future__ import annotations

import sys
import time

import pytest
from small_world import make_sweep

from jobs.events import TERMINAL, Failed, Started, Step
from orchestrator.ports import Launch
from sweeps.spec import ResourceSpec

pytestmark = pytest.mark.ray


def endless(spec, place):
    """A job that only its death ends."""
    yield Started(ranks=1, device="cpu", trainable={})
    while True:
        time.sleep(0.05)
        yield Step(samples=1, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)


def test_a_process_killed_for_its_nodes_memory_is_a_lost_worker(tmp_path, monkeypatch):
    """Restarted from its checkpoint, not given up as a mistake of the job's own."""
    from orchestrator.executors.ray_executor import RayExecutor

    from ray import cloudpickle  # isort: skip - the executor sets how ray is imported

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # any machine uses more than this
    executor = RayExecutor(num_cpus=1, runner=endless)
    try:
        executor.start(
            Launch(
                trial=0,
                attempt=1,
                spec=make_sweep().base,
                resources=ResourceSpec(workers=1),
                folder=tmp_path / "0000",
            )
        )
        deadline, last = time.monotonic() + 60.0, None
        while not isinstance(last, TERMINAL):
            assert time.monotonic() < deadline, last
            for said in executor.wait(0.2):
                last = said.event
    finally:
        executor.close()
    assert isinstance(last, Failed), last
    assert last.kind == "worker-lost", last
    assert "memory" in last.reason, last
