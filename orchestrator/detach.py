"""Start a controller that outlives this terminal: here, or on a cluster as a Ray job."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
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


def detach_on_cluster(arguments: Sequence[str], dashboard: str, folder: Path) -> str:
    """Submit `mirsweep ARGUMENTS` as a Ray job; returns the job's id.

    dashboard: address of the cluster's dashboard, e.g. http://head:8265. folder: of the study,
    which the head node must reach by the same path. Raises ClusterError where the job is not
    taken.
    """
    # A head node whose shell does not find mirsweep may still have it where it is here.
    here = shlex.quote(str(Path(sys.executable).parent))
    words = shlex.join([*arguments, "--address", "auto"])
    inner = f'PATH="$PATH":{here} mirsweep {words}'
    folder.mkdir(parents=True, exist_ok=True)  # `attach` waits for a study to begin in it
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", folder.resolve().name)
    job = f"mirsweep-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    command = [program("ray"), "job", "submit", "--no-wait", "--address", dashboard]
    command += ["--submission-id", job, "--", "sh", "-c", inner]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{dashboard}: Ray takes no job: {_why(done.stdout + done.stderr)}")
    return job


def _why(said: str) -> str:
    """The line that says what is wrong, and the remedy."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no answer"]
    if "Authentication" in said:
        return (
            "it asks for a token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the cluster's token unless it was made on this machine"
        )
    if "ray[default]" in said:
        return "the job client is missing here. Run: pip install 'ray[default]'"
    if "404" in lines[-1]:
        return (
            f"{lines[-1]} Its job server does not run: start the head node with "
            "`ray start --head --include-dashboard=true`, and install ray[default] there"
        )
    return (
        f"{lines[-1]} Is its dashboard there (`ray start --head --include-dashboard=true`, "
        "ray[default] installed on the head node, port 8265)?"
    )
