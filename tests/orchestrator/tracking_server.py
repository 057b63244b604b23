"""A real MLflow server that can be killed and started again, and a sweep that tells it things.

Used by the tests and by the benchmark, which lets it stay away for a whole minute.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from small_world import FakeJobs, make_sweep

from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.ports import Tracker
from orchestrator.state import SweepView
from orchestrator.trackers.mlflow_tracker import MlflowTracker
from sweeps.spec import StopSpec, SweepSpec, TrackingSpec


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`mlflow server` on one port and database. away: how long it was, in seconds."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "server.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.away = 0.0
        self._log = folder / "server.log"
        self._command = [
            str(Path(sys.executable).parent / "mlflow"), "server", "--workers", "1",
            "--host", "127.0.0.1", "--port", str(self.port),
            "--backend-store-uri", f"sqlite:///{self.database}",
            "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120.0
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)

    def _answers(self) -> bool:
        import requests

        try:
            return requests.get(f"{self.uri}/health", timeout=5.0).ok
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """As a machine that is switched off; does nothing where it is away already."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._since = time.monotonic()

    def back(self, after_s: float) -> None:
        """Start it again when it was away for so long."""
        time.sleep(max(0.0, self._since + after_s - time.monotonic()))
        self.start()
        self.away = time.monotonic() - self._since


class Paced(FakeJobs):
    """Jobs that take their time. gaps: seconds from each event to the next that were not theirs."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.pause_s = pause_s
        self.gaps: list[float] = []

    def __call__(self, spec, place):
        for event in super().__call__(spec, place):
            time.sleep(self.pause_s)
            told = time.monotonic()
            yield event
            self.gaps.append(time.monotonic() - told)


def sweep_of(trials: int, uri: str | None) -> SweepSpec:
    """Trials that all run to their end, told to this server."""
    spec = make_sweep(trials, stop=StopSpec(rule="none", infeasible_patience=0))
    return spec.model_copy(update={"tracking": TrackingSpec(uri=uri)})


class Sweep:
    """A sweep in a thread of its own, with MLflow or another tracker. options: the controller's."""

    def __init__(
        self, spec: SweepSpec, folder: Path, jobs: FakeJobs, *,
        tracker: Tracker | None = None, slots: int = 1, **options: float,
    ) -> None:  # fmt: skip
        self._view: SweepView | None = None
        controller = Controller(
            spec,
            folder,
            InlineExecutor(jobs, slots=slots, nodes=((float(slots), 0.0),)),
            tracker or MlflowTracker(),
            on_change=self._see,
            **options,
        )
        self._thread = threading.Thread(target=controller.run)
        self._thread.start()

    def _see(self, view: SweepView) -> None:
        self._view = view

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        trials = {} if self._view is None else self._view.trials
        return sum(trial.state.final for trial in trials.values())

    def until(self, ended: int) -> None:
        """Wait until so many trials have ended."""
        self.when(lambda _: self.ended >= ended)

    def when(self, true: Callable[[SweepView], bool]) -> SweepView:
        """Wait until this is true of the sweep."""
        deadline = time.monotonic() + 240.0
        while self._view is None or not true(self._view):
            assert self._thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)
        return self._view

    def over(self) -> SweepView:
        """Its last view."""
        self._thread.join()
        assert self._view is not None
        return self._view


def untold(view: SweepView, uri: str, *, thinned: bool = False) -> list[str]:
    """What the store lacks of a sweep, or has more than once.

    thinned: of the training curve, what the event log has is enough.
    """
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(view.spec.name).experiment_id
    found = [r for r in client.search_runs([experiment]) if "mirsweep.trial" in r.data.tags]
    runs = {int(run.data.tags["mirsweep.trial"]): run for run in found}
    wrong = [] if len(found) == len(runs) == len(view.trials) else [f"{len(found)} runs"]
    for number, trial in view.trials.items():
        run = runs[number]
        if run.data.tags["mirsweep.state"] != trial.state:
            wrong.append(f"trial {number}: {run.data.tags['mirsweep.state']}")
        expected = {"mir": [s.samples for s in trial.scores], "loss": list(range(8, 65, 8))}
        for name, steps in expected.items():
            told = sorted(p.step for p in client.get_metric_history(run.info.run_id, name))
            if thinned and name == "loss":
                logged = {point.samples for point in trial.steps}
                steps = sorted(logged | (set(told) & set(steps)))
            if told != steps:
                wrong.append(f"trial {number}: {name} at {told}")
    return wrong
