"""`kill -9` at random moments of a whole sweep: Ray, Optuna in SQLite and MLflow, all of them real.

MIRSWEEP_KILLS: how many, a handful if it is not set.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import pytest
from left_behind import eventually, gone, groups_left
from tracking_server import untold

from orchestrator.eventlog import read_records
from orchestrator.fold import load_view
from orchestrator.state import TrialState

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    # MLflow's own use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning"),
]
KILLS = int(os.environ.get("MIRSWEEP_KILLS", "4"))
BEFORE_S = 5.0
"""Half of the kills come within so long of a controller's having its modules: while it reaches Ray,
MLflow and Optuna, and while it recovers."""
RECORDS = 40
"""The others come while jobs run: within so many records of the log's."""
TRIALS = 6
TOLD = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAILED: "FAIL"}

SCRIPT = """
import sys, time
from pathlib import Path
import mlflow, optuna, small_world
from orchestrator.controller import Controller
from orchestrator.executors.ray_executor import RayExecutor, ray
from orchestrator.trackers.mlflow_tracker import MlflowTracker

address, folder, trials = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
ray.cloudpickle.register_pickle_by_value(small_world)
ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])

def slow(spec, place):
    (place.folder / "pids").open("a").write(f"{small_world.process()}\\n")
    for event in small_world.FakeJobs()(spec, place):
        time.sleep(0.03)
        yield event

print("has its modules", flush=True)
spec = small_world.make_sweep(trials)
study = spec.study.model_copy(update={"sampler": "tpe", "startup_trials": 2})
spec = spec.model_copy(update={"study": study})
Controller(spec, folder, RayExecutor(address, runner=slow), MlflowTracker(), patience_s=0.25).run()
"""


@pytest.fixture
def address():
    """A cluster that outlives the controllers: what they leave on it stays there."""
    from ray.cluster_utils import Cluster

    from orchestrator.executors.ray_executor import ray

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    ray.init(address=made.address, log_to_driver=False)
    yield made.address
    ray.shutdown()
    made.shutdown()


@contextmanager
def controller(script: Path, address: str, folder: Path) -> Iterator[subprocess.Popen]:
    """A process that runs the sweep and has its modules; it must not fail."""
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), address, str(folder), str(TRIALS)]
    said = script.with_suffix(".said")
    with (
        said.open("w") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process,
    ):
        eventually(
            lambda: process.poll() is not None or "has its modules" in said.read_text(), 120.0
        )
        yield process
    assert process.returncode in (0, -signal.SIGKILL), said.read_text()


def kill(process: subprocess.Popen, folder: Path, chance: random.Random) -> None:
    """`kill -9` at a random moment, unless the sweep comes to its end before it."""
    if chance.random() < 0.5:
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.0, BEFORE_S))
    else:
        enough = records(folder) + chance.randrange(1, RECORDS)
        while process.poll() is None and records(folder) < enough:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.05))
    process.kill()


def records(folder: Path) -> int:
    """How many the log has."""
    log = folder / "events.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def ended(folder: Path) -> list[int]:
    """The trials whose end the log has, in order."""
    found = read_records(folder / "events.jsonl") if records(folder) else []
    return [record.data["trial"] for record in found if record.kind == "ended"]


def nothing_is_left(folder: Path) -> None:
    pids = [pid for path in folder.glob("trials/*/pids") for pid in path.read_text().split()]
    eventually(lambda: all(gone(pid) for pid in pids))
    eventually(lambda: not groups_left())


def runs_of(folder: Path) -> Counter[int]:
    """How many runs MLflow has of each trial."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    found = [] if experiment is None else client.search_runs([experiment.experiment_id])
    tags = [run.data.tags.get("mirsweep.trial") for run in found]
    return Counter(int(number) for number in tags if number is not None)


def so_far(folder: Path) -> None:
    """What must hold of a sweep whose controller was killed."""
    nothing_is_left(folder)
    assert set(Counter(ended(folder)).values()) <= {1}
    if not records(folder):
        return
    runs = runs_of(folder)
    assert set(runs.values()) <= {1}
    assert set(runs) <= set(load_view(folder).trials)


def in_the_end(folder: Path) -> None:
    """None lost, none doubled, and the log, Optuna and MLflow say the same."""
    nothing_is_left(folder)
    view = load_view(folder)
    assert sorted(view.trials) == list(range(TRIALS))
    assert sorted(ended(folder)) == list(range(TRIALS))
    assert {t.state for t in view.trials.values()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(trial.restarts == 0 for trial in view.trials.values())
    study = optuna.load_study(storage=f"sqlite:///{folder}/study.db", study_name="small")
    assert {t.number: t.state.name for t in study.trials} == {
        number: TOLD[trial.state] for number, trial in view.trials.items()
    }
    for trial in study.trials:
        mine = view.trials[trial.number]
        counting = [s.samples for s, ok in zip(mine.scores, mine.counted, strict=True) if ok]
        assert sorted(trial.intermediate_values) == counting
        assert trial.state.name != "COMPLETE" or trial.value == mine.objective
    assert runs_of(folder) == Counter(range(TRIALS))
    assert untold(view, f"sqlite:///{folder}/mlflow.db", thinned=True) == []


@pytest.mark.timeout(120 + 60 * KILLS)
def test_killed_at_random_moments_nothing_is_lost_doubled_or_left(tmp_path, address):
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT)
    chance = random.Random(5)
    folder, kills = tmp_path / "study0", 0
    while kills < KILLS:
        with controller(script, address, folder) as process:
            kill(process, folder, chance)
        if process.returncode == 0:
            in_the_end(folder)  # it came to its end between kills: the rest of them hit another
            folder = tmp_path / f"study{kills}"
            continue
        kills += 1
        print(f"kill {kills}: {records(folder)} records, {len(ended(folder))} trials have ended")
        if kills % 2:  # after the others the same command is run at once
            so_far(folder)
    with controller(script, address, folder):
        pass
    in_the_end(folder)
