"""A whole sweep under real Ray, its controller killed with `kill -9` and run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from left_behind import gone

from orchestrator.eventlog import read_records
from orchestrator.fold import load_view
from orchestrator.state import TrialState

SCRIPT = """
import sys, time
from pathlib import Path
import small_world
from orchestrator.controller import Controller
from orchestrator.executors.ray_executor import RayExecutor
from orchestrator.trackers.memory import MemoryTracker
from ray import cloudpickle

cloudpickle.register_pickle_by_value(small_world)
cloudpickle.register_pickle_by_value(sys.modules["__main__"])

def slow(spec, place):
    (Path(sys.argv[1]) / "pids").open("a").write(f"{small_world.process()}\\n")
    for event in small_world.FakeJobs()(spec, place):
        time.sleep(0.03)
        yield event

folder = Path(sys.argv[1])
Controller(
    small_world.make_sweep(5), folder / "study", RayExecutor(num_cpus=2, runner=slow),
    MemoryTracker(),
).run()
"""


@pytest.fixture
def sweep(tmp_path):
    """Starts the sweep in a process of its own, in a process group as a terminal does."""
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT.replace("sys.argv[1]", repr(str(tmp_path))))
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    return partial(subprocess.Popen, command, env=environment, start_new_session=True)


def wait_for_records(process, log, records):
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= records:
            return
        time.sleep(0.01)
    raise AssertionError("the sweep ended before it could be interrupted")


def assert_no_orphans(tmp_path):
    deadline = time.monotonic() + 30.0
    while not all(gone(pid) for pid in (tmp_path / "pids").read_text().split()):
        assert time.monotonic() < deadline, "orphaned jobs"
        time.sleep(0.05)


@pytest.mark.ray
@pytest.mark.slow
def test_killed_under_ray_nothing_is_lost_doubled_or_left_running(tmp_path, sweep):
    log = tmp_path / "study" / "events.jsonl"
    with sweep() as process:
        wait_for_records(process, log, 14)
        process.send_signal(signal.SIGKILL)
    running = [t for t in load_view(tmp_path / "study").trials.values() if not t.state.final]
    assert running
    assert_no_orphans(tmp_path)
    with sweep() as again:
        assert again.wait(timeout=200) == 0
    view = load_view(tmp_path / "study")
    assert sorted(view.trials) == [0, 1, 2, 3, 4]
    assert {t.state for t in view.trials.values()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    endings = [r.data["trial"] for r in read_records(log) if r.kind == "ended"]
    assert sorted(endings) == [0, 1, 2, 3, 4]
    for trial in running:
        assert view.trials[trial.number].attempt == trial.attempt + 1
        assert view.trials[trial.number].restarts == 0


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_reaches_the_controller_alone_and_jobs_leave_with_a_checkpoint(tmp_path, sweep):
    log = tmp_path / "study" / "events.jsonl"
    with sweep() as process:
        wait_for_records(process, log, 8)
        # A terminal sends it to every process of the group, Ray's included.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=100) == 0
    view = load_view(tmp_path / "study")
    assert "SIGINT" in view.note
    assert view.ended is None
    paused = [trial for trial in view.trials.values() if trial.state is TrialState.PAUSED]
    assert paused
    assert all(trial.checkpoint for trial in paused)
    assert_no_orphans(tmp_path)
