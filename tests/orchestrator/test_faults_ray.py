"""Real Ray on several nodes: dead ranks, a dead node, a preemption notice, a killed controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import faults
import pytest
import small_world
from left_behind import eventually, gone, groups_left
from small_world import SAMPLES, make_sweep

from orchestrator.controller import Controller
from orchestrator.fold import load_view
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import ResourceSpec, StopSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}


@pytest.fixture
def cluster():
    """A head without room for a gang, and two nodes with room for one each."""
    from ray.cluster_utils import Cluster

    from orchestrator.executors.ray_executor import ray

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": HEALTH})
    for _ in range(2):
        made.add_node(num_cpus=2)
    ray.init(address=made.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(small_world)
    ray.cloudpickle.register_pickle_by_value(faults)
    yield made
    ray.shutdown()
    made.shutdown()


def test_dead_ranks_a_dead_node_and_a_preemption_cost_one_attempt_each(cluster, tmp_path):
    from orchestrator.executors.ray_executor import RayExecutor

    plan = list(faults.FAULTS)
    spec = make_sweep(
        len(plan),
        stop=StopSpec(rule="none", infeasible_patience=0),
        resources=ResourceSpec(workers=2, max_concurrent=1),
    )
    trials = tmp_path / "study" / "trials"
    executor = faults.Faulty(RayExecutor(runner=faults.gang), trials, plan)
    view = Controller(spec, tmp_path / "study", executor, MemoryTracker()).run()
    for number, name in enumerate(plan):
        trial = view.trials[number]
        assert trial.state is TrialState.COMPLETE, name
        assert trial.attempt == 2, name
        assert trial.restarts == (0 if name == "preemption notice" else 1), name
        assert [scored.samples for scored in trial.scores] == list(range(0, SAMPLES + 1, 16))
    assert set(executor.seconds) == set(plan)
    pids = [path.read_text().split()[0] for path in trials.glob("*/pid*")]
    eventually(lambda: all(gone(pid) for pid in pids))
    eventually(lambda: not groups_left())


SCRIPT = """
import sys
from pathlib import Path
import faults, small_world
from orchestrator.controller import Controller
from orchestrator.executors.ray_executor import RayExecutor, ray
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import ResourceSpec

for module in (small_world, faults):
    ray.cloudpickle.register_pickle_by_value(module)
spec = small_world.make_sweep(3, resources=ResourceSpec(workers=2))
executor = RayExecutor(sys.argv[2], runner=faults.gang)
Controller(spec, Path(sys.argv[1]), executor, MemoryTracker()).run()
"""


def test_a_controller_killed_on_a_shared_cluster_leaves_nothing_behind(cluster, tmp_path):
    """The cluster outlives the controller, so nothing is freed by its end alone."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "study"), cluster.address]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "study" / "events.jsonl"
    for records in (8, 30):
        with subprocess.Popen(command, env=environment) as process:
            eventually(lambda n=records: log.exists() and log.read_bytes().count(b"\n") >= n, 200)
            process.send_signal(signal.SIGKILL)
        pids = [path.read_text().split()[0] for path in tmp_path.glob("study/trials/*/pid*")]
        assert pids
        eventually(lambda found=pids: all(gone(pid) for pid in found))
        eventually(lambda: not groups_left())
    subprocess.run(command, env=environment, check=True, timeout=250)
    view = load_view(tmp_path / "study")
    assert sorted(view.trials) == [0, 1, 2]
    assert all(trial.state.final for trial in view.trials.values())
    assert all(trial.restarts == 0 for trial in view.trials.values())
