"""A node that loses workers but stays alive: jobs go elsewhere, where there is an elsewhere."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import executor_jobs
import pytest
import small_world
from executor_jobs import collect, terminal
from small_world import make_sweep

from jobs.events import Finished, Started, Step
from orchestrator.controller import Controller
from orchestrator.ports import Launch, Waiting
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import ResourceSpec, StopSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]
GANG = ResourceSpec(workers=2, spread="strict-pack", max_concurrent=1, max_restarts=1)


@pytest.fixture
def cluster():
    """A head without room, and two nodes with room for one gang each."""
    from ray.cluster_utils import Cluster

    from orchestrator.executors.ray_executor import ray

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.named = {name: made.add_node(num_cpus=2, resources={name: 2}) for name in "ab"}
    ray.init(address=made.address, log_to_driver=False)
    for module in (small_world, executor_jobs):
        ray.cloudpickle.register_pickle_by_value(module)
    yield made
    ray.shutdown()
    made.shutdown()


def sick(folder: Path):
    """A runner: whatever runs on the node that its first job came to dies there."""

    def run(spec, place):
        mark = folder / "sick"
        if not mark.exists() and place.rank == 0:
            mark.write_text(str(os.getppid()))  # the raylet, one a node
        yield Started(ranks=place.world_size, device="cpu", trainable={})
        while not mark.exists():
            time.sleep(0.01)
        if mark.read_text() == str(os.getppid()):
            if place.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60.0)
        if place.rank == 0:
            yield from small_world.FakeJobs()(spec, place)
        yield Finished(samples=small_world.SAMPLES, seconds=1.0)

    return run


def test_a_node_that_eats_workers_costs_two_trials_one_attempt_and_then_nobody(cluster, tmp_path):
    from orchestrator.executors.ray_executor import RayExecutor

    spec = make_sweep(4, stop=StopSpec(rule="none", infeasible_patience=0), resources=GANG)
    executor = RayExecutor(runner=sick(tmp_path))
    view = Controller(spec, tmp_path / "study", executor, MemoryTracker()).run()
    assert {trial.state for trial in view.trials.values()} == {TrialState.COMPLETE}
    attempts = [trial.attempt for _, trial in sorted(view.trials.items())]
    assert attempts[0] == 2
    assert sum(attempts) <= 4 + 2, attempts


def test_a_job_waits_beside_a_sick_node_alone_and_goes_back_if_no_other_is_left(cluster, tmp_path):
    from orchestrator.executors.ray_executor import RayExecutor

    def start(trial, node=None, attempt=1):
        custom = {} if node is None else {node: 1.0}
        executor.start(
            Launch(
                trial=trial, attempt=attempt, spec=make_sweep().base,
                resources=GANG.model_copy(update={"custom": custom}),
                folder=tmp_path / f"{trial:04d}",
            )
        )  # fmt: skip

    def lose(trial):
        path = tmp_path / f"{trial:04d}" / "pid1"
        os.kill(pid_of(path), signal.SIGKILL)
        last = collect(executor, terminal)[-1]
        assert (last.trial, last.event.kind) == (trial, "worker-lost")
        path.unlink()

    first, second = here_and_there()
    executor = RayExecutor(runner=executor_jobs.slow)
    start(0, node=first)
    lose(0)
    start(1, node=second)
    collect(executor, lambda event: isinstance(event, Step))
    start(0, attempt=2)  # the only room is where it was lost once, and it may be well there
    lose(0)
    start(2, node=first)
    lose(2)
    start(0, attempt=3)
    waits = collect(executor, lambda event: isinstance(event, Waiting))[-1]
    assert (waits.trial, waits.attempt) == (0, 3)
    assert "beside nodes where a worker was lost" in waits.event.reason
    cluster.remove_node(cluster.named[second])
    heard = collect(executor, lambda event: isinstance(event, Started))
    assert (heard[-1].trial, heard[-1].attempt) == (0, 3)
    executor.stop(0, "enough")
    executor.close()


def here_and_there() -> tuple[str, str]:
    """The two nodes by name, last one that the driver is not connected to and may so lose."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    mine = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return ("b", "a") if "b" in mine else ("a", "b")


def pid_of(path: Path) -> int:
    deadline = time.monotonic() + 30.0
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())
