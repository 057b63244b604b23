"""Start a controller that outlives this terminal: here, or on a cluster as a Ray job."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mir.errors import ClusterError
from orchestrator.views.summary import program

LOG = "controller.log"
_START = "from orchestrator.cli import main; main()"


def detach_here(arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Run `mirsweep ARGUMENTS` in a session of its own, which outlives this process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def detach_on_cluster(arguments: Sequence[str], dashboard: str) -> str:
    """Submit `mirsweep ARGUMENTS` as a Ray job; returns what Ray says.

    dashboard: address of the cluster's dashboard, e.g. http://head:8265. Raises ClusterError
    where the job is not taken.
    """
    command = [program("ray"), "job", "submit", "--no-wait", "--address", dashboard, "--"]
    command += ["mirsweep", *arguments, "--address", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no answer"]
        raise ClusterError(f"{shlex.join(command)}: {last[0]}. Is the dashboard at {dashboard}?")
    return done.stdout.strip()
