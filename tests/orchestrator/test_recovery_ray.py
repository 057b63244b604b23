"""A whole sweep under real Ray, its controller killed with `kill -9` and run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.ray
@pytest.mark.slow
def test_killed_under_ray_nothing_is_lost_doubled_or_left_running(tmp_path):
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT.replace("sys.argv[1]", repr(str(tmp_path))))
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "study" / "events.jsonl"
    with subprocess.Popen([sys.executable, script], env=environment) as process:
        while process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= 14:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    running = [t for t in load_view(tmp_path / "study").trials.values() if not t.state.final]
    assert running
    deadline = time.monotonic() + 20.0
    while any(alive(pid) for pid in (tmp_path / "pids").read_text().split()):
        assert time.monotonic() < deadline, "orphaned jobs"
        time.sleep(0.05)
    subprocess.run([sys.executable, script], env=environment, check=True, timeout=120)
    view = load_view(tmp_path / "study")
    assert sorted(view.trials) == [0, 1, 2, 3, 4]
    assert {t.state for t in view.trials.values()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    endings = [r.data["trial"] for r in read_records(log) if r.kind == "ended"]
    assert sorted(endings) == [0, 1, 2, 3, 4]
    for trial in running:
        assert view.trials[trial.number].attempt == trial.attempt + 1
        assert view.trials[trial.number].restarts == 0
