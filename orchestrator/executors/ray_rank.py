"""One rank's process under Ray: a plain class that `ray_executor` makes an actor of.

Imports nothing heavy: what a job needs is imported by its runner, in the job's own process.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError

from jobs.events import Event, event_from_json
from jobs.place import Place
from jobs.spec.base import first_mistake
from jobs.spec.downstream import AnyJob, job_from_json
from mir.errors import ClusterError
from orchestrator.executors.inline import Runner
from orchestrator.executors.outcome import whole
from orchestrator.executors.scores import with_scores_kept
from orchestrator.ports import Launch


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """Where a rank runs, as plain values that cross Ray; see `Place`.

    job: names the attempt. cwd: of the command.
    """

    job: str
    folder: str
    shared: str | None
    rank: int
    world_size: int
    local_rank: int
    master_addr: str
    master_port: int
    device: str
    threads: int
    cwd: str

    @property
    def environment(self) -> dict[str, str]:
        """What torch.distributed, OpenMP and DeepSpeed read from the environment."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "DS_ACCELERATOR": self.device,
        }


def rank_places(
    job: str, launch: Launch, nodes: Sequence[str], addresses: Mapping[str, str], port: int
) -> list[RankPlace]:
    """Every rank's surroundings; ranks on one node talk over its loopback.

    nodes: where each rank is. addresses: of the nodes. port: free on the lead's node.
    """
    one_node = len(set(nodes)) == 1
    return [
        RankPlace(
            job=job,
            folder=str(launch.folder.resolve()),
            shared=None if launch.shared is None else str(launch.shared.resolve()),
            rank=index,
            world_size=len(nodes),
            local_rank=nodes[:index].count(node),
            master_addr="127.0.0.1" if one_node else addresses[nodes[0]],
            master_port=port,
            device="cuda" if launch.resources.gpus_per_worker else "cpu",
            threads=max(1, int(launch.resources.cpus_per_worker)),
            cwd=str(Path.cwd()),
        )
        for index, node in enumerate(nodes)
    ]


def heard(said: dict[str, Any]) -> Event:
    """What a rank said. Raises ClusterError where it is nothing that this mirsweep knows."""
    try:
        return event_from_json(said)
    except ValidationError as error:
        place, words = first_mistake(error)
        raise ClusterError(
            f"a rank sent what this mirsweep does not know: {place}: {words}. Install the "
            "same version of mirsweep on every node"
        ) from error


class Rank:
    """The actor. `run` works in one thread while `stop` gets through in another.

    It may run one job after another, so a stop names its job. SIGTERM is a notice that the node
    is taken back: the job leaves with a checkpoint, as if it had been asked to.
    """

    def __init__(self) -> None:
        self._stops: dict[str, str] = {}
        self._notice: str | None = None
        self._busy = False
        # Ray makes actors in the main thread, and would end the process where it stands.
        signal.signal(signal.SIGTERM, self._taken_back)

    def _taken_back(self, _number: int, _frame: FrameType | None) -> None:
        self._notice = f"SIGTERM on {socket.gethostname()}, its node is taken back"
        if not self._busy:
            os._exit(0)

    def free_port(self) -> int:
        """A TCP port that was free on this node a moment ago."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port: int = probe.getsockname()[1]
        return port

    def size(self) -> int:
        """Bytes of memory that this process has occupied at most."""
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def stop(self, job: str, reason: str) -> None:
        """Ask the job to leave at its next step boundary."""
        self._stops.setdefault(job, reason)

    def run(self, runner: Runner, spec: dict[str, Any], at: RankPlace) -> Iterator[dict[str, Any]]:
        """The lead rank's work: every event as it happens, as plain JSON values."""

        def keeping(spec: AnyJob, place: Place) -> Iterator[Event]:
            return with_scores_kept(runner(spec, place), place.folder)

        for event in self._events(keeping, spec, at):
            yield event.model_dump(mode="json")

    def follow(self, runner: Runner, spec: dict[str, Any], at: RankPlace) -> dict[str, Any]:
        """Any other rank's work: only its last word counts."""
        last: dict[str, Any] = {}
        for event in self._events(runner, spec, at):
            last = event.model_dump(mode="json")
        return last

    def _events(self, runner: Runner, spec: dict[str, Any], at: RankPlace) -> Iterator[Event]:
        self._busy = True
        try:
            yield from whole(lambda: runner(job_from_json(spec), self._place(at)))
        finally:
            self._busy = False
        # The engine and the model refer to each other; the next job needs their memory.
        gc.collect()

    def _place(self, at: RankPlace) -> Place:
        """Make this process the rank's: environment, working directory, folder and output."""
        os.environ.update(at.environment)
        if Path(at.cwd).is_dir():
            os.chdir(at.cwd)
        folder = Path(at.folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write_output_to(folder / f"rank{at.rank}.log")
        return Place(
            folder=folder,
            rank=at.rank,
            world_size=at.world_size,
            local_rank=at.local_rank,
            master_addr=at.master_addr,
            master_port=at.master_port,
            device=at.device,
            threads=at.threads,
            shared=None if at.shared is None else Path(at.shared),
            stop_requested=lambda: self._stops.get(at.job) or self._notice,
        )


def _write_output_to(path: Path) -> None:
    """Send this process's output to a file in the trial's folder, native libraries' included."""
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
