"""`run --detach` on a cluster: a Ray job on a real head node, followed and stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminals import Terminals, end

from orchestrator.failures import INTERRUPTED
from orchestrator.follow import Pulse
from orchestrator.state import TrialState

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def head_node(environment):
    """`ray start --head` with its dashboard; gives the dashboard's address."""
    dashboard = free_port()
    # Paths of sockets have little room.
    place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
    command += ["--num-cpus=1", f"--port={free_port()}", f"--dashboard-port={dashboard}"]
    command += ["--include-dashboard=true", f"--temp-dir={place}", "--disable-usage-stats"]
    # Another Ray on this machine has the usual one, and the agent without it takes no job.
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    with (place / "said").open("w") as said:
        head = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + 90.0
        while not answers(dashboard):
            assert head.poll() is None, (place / "said").read_text()
            assert time.monotonic() < deadline, (place / "said").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.send_signal(signal.SIGTERM)  # with --block it takes its processes along
        head.wait(timeout=60.0)
        shutil.rmtree(place, ignore_errors=True)


def submitted(here: Terminals, *words: str) -> dict[str, str]:
    """The job server takes longer than its port; until then the error is one line."""
    deadline = time.monotonic() + 60.0
    while True:
        done = here.run(*words, "--json")
        if done.returncode == 0:
            return json.loads(done.stdout)
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("error: http://127.0.0.1:"), done.stderr
        assert done.stderr.count("\n") == 1
        assert time.monotonic() < deadline, done.stderr


def test_a_detached_sweep_is_a_ray_job_that_no_terminal_holds(tmp_path):
    here = Terminals(tmp_path, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    recipe = here.recipe(samples=40_000, trials=2)
    with head_node(here.environment) as address:
        told = submitted(here, "run", recipe, "--detach", "--address", address)
        assert told["ray_job"].startswith("mirsweep-tiny-")
        with here.start("attach", "tiny", "--json", "--wait", "120") as watched:
            line = json.loads(watched.stdout.readline())
            os.killpg(watched.pid, signal.SIGKILL)  # the laptop is closed
        assert line["trial"] == 0
        view = here.until(lambda view: bool(view.trials) and bool(view.trials[0].steps))
        assert Pulse(tmp_path / "runs" / "tiny").alive()
        refused = here.run("run", recipe, "--folder", "runs/tiny", "--executor", "inline")
        assert refused.returncode == 1
        assert "another controller runs this study" in refused.stderr

        attached = here.start("attach", "tiny")
        assert here.answer("stop", "tiny", "--now")["taken"] is True
        said = end(attached)
        assert attached.returncode == INTERRUPTED, said
        assert "stopped by `mirsweep stop`" in said
        after = here.until(lambda view: view.trials[0].state is TrialState.PAUSED)
        assert after.trials[0].samples >= view.trials[0].samples > 0
        assert after.trials[0].checkpoint is not None
        assert Pulse(tmp_path / "runs" / "tiny").left
