"""A sweep in a process of its own, killed with `kill -9` again and again, then run to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SCRIPT = """
import sys, time
from importlib import import_module
from pathlib import Path
from small_world import FakeJobs, make_sweep
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor

folder, trials, pause, module, tracker = sys.argv[1:]
inner = FakeJobs()
def slow(spec, place):
    for event in inner(spec, place):
        time.sleep(float(pause))
        yield event
tracker = getattr(import_module(module), tracker)()
Controller(make_sweep(int(trials)), Path(folder), InlineExecutor(slow), tracker).run()
"""


def run_and_kill(
    folder: Path, tracker: type, at: Sequence[int], *, trials: int, pause_s: float
) -> None:
    """Sweep in `folder`; each time that its log has so many records, kill it and begin again.

    pause_s: before each event of a job, or the sweep would be over before it can be killed.
    """
    words = [folder, trials, pause_s, tracker.__module__, tracker.__name__]
    command = [sys.executable, "-c", SCRIPT, *map(str, words)]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    log = folder / "events.jsonl"
    for records in at:
        with subprocess.Popen(command, env=environment) as process:
            while process.poll() is None:
                if log.exists() and log.read_bytes().count(b"\n") >= records:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.005)
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command, env=environment, check=True)
