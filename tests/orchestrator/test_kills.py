"""Killed at fifty moments: with Optuna's real study, and as a process with MLflow as well."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from killed_process import run_and_kill
from small_world import FakeJobs, Fuse, Fused, Killed, make_sweep

from orchestrator.controller import Controller
from orchestrator.eventlog import EventLog, read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.trackers.mlflow_tracker import MlflowTracker
from sweeps.study import Study

TRIALS = 6


def spec_of(sampler):
    spec = make_sweep(TRIALS)
    study = spec.study.model_copy(update={"sampler": sampler, "startup_trials": 2})
    return spec.model_copy(update={"study": study})


@contextmanager
def burning(fuse):
    """Every write of the log may be the last thing a controller did, before or after it."""
    append = EventLog.append

    def burn(log, *args, **kwargs):
        fuse()
        record = append(log, *args, **kwargs)
        fuse()
        return record

    EventLog.append = burn
    try:
        yield
    finally:
        EventLog.append = append


def run(folder, spec, tracker, fuse):
    with burning(fuse):
        return Controller(
            spec,
            folder,
            Fused(InlineExecutor(FakeJobs(), nodes=((1.0, 0.0),)), fuse),
            Fused(tracker, fuse),
            open_study=lambda *args: Fused(Study(*args), fuse),
        ).run()


def outcome(view):
    return {
        n: (t.state, t.params, t.objective, [s.samples for s in t.scores])
        for n, t in view.trials.items()
    }


@pytest.mark.slow
def test_killed_at_fifty_moments_the_very_same_trials_come_out(tmp_path):
    spec, fuse = spec_of("tpe"), Fuse()
    expected = run(tmp_path / "whole", spec, MemoryTracker(), fuse)
    chance, tracker = random.Random(5), MemoryTracker()
    kills = 0
    while kills < 50:
        try:
            # Far enough to get past the recovery now and then, near enough for fifty kills.
            run(tmp_path / "study", spec, tracker, Fuse(chance.randrange(10, fuse.burnt // 8)))
            raise AssertionError(f"the sweep was over after {kills} kills")
        except Killed:
            kills += 1
            if kills % 10 == 0 and len(load_view(tmp_path / "study").trials) == TRIALS:
                # It has come to its end between kills: the rest of them hit another sweep.
                check(tmp_path / "study", run(tmp_path / "study", spec, tracker, Fuse()), expected)
                tmp_path = tmp_path / "next"
                tracker = MemoryTracker()
                tmp_path.mkdir()
    check(tmp_path / "study", run(tmp_path / "study", spec, tracker, Fuse()), expected)


def check(folder, view, expected):
    assert outcome(view) == outcome(expected)
    endings = Counter(r.data["trial"] for r in read_records(folder / "events.jsonl")
                      if r.kind == "ended")  # fmt: skip
    assert endings == Counter(range(TRIALS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
def test_killed_with_kill_9_every_trial_has_one_run_in_mlflow(tmp_path):
    run_and_kill(tmp_path / "study", MlflowTracker, (6, 25, 45), trials=4, pause_s=0.02)
    view = load_view(tmp_path / "study")
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/study/mlflow.db")
    experiment = client.get_experiment_by_name("small").experiment_id
    runs = [run for run in client.search_runs([experiment]) if "mirsweep.trial" in run.data.tags]
    assert Counter(int(run.data.tags["mirsweep.trial"]) for run in runs) == Counter(range(4))
    for run in runs:
        trial = view.trials[int(run.data.tags["mirsweep.trial"])]
        assert run.data.tags["mirsweep.state"] == trial.state
        history = client.get_metric_history(run.info.run_id, "mir")
        assert sorted(p.step for p in history) == [scored.samples for scored in trial.scores]


MIGRATES = """
import os, signal, sys
from pathlib import Path
import sqlalchemy
from small_world import make_sweep
from orchestrator.trackers.mlflow_tracker import MlflowTracker

left = int(sys.argv[2])

@sqlalchemy.event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
def burn(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

MlflowTracker().open_sweep(make_sweep(), Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
def test_killed_while_mlflow_makes_its_tables_the_same_command_goes_on(tmp_path):
    """MLflow cannot go on with a database that is half made; it takes 1,700 statements."""
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MIGRATES, str(tmp_path), "1000"]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    tracker = MlflowTracker()
    tracker.open_sweep(make_sweep(), tmp_path)
    tracker.close()
    assert [path.name for path in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]
