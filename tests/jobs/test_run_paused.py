"""Pausing real jobs: a trial that was paused and resumed comes out as one that ran on."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_job import make_world

from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import SweepSpec

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def sweep(world: dict, **stop: object) -> SweepSpec:
    """Three rates, the slow ones far behind; samples enough to resume everybody."""
    return SweepSpec.model_validate(
        {
            "name": "real",
            "base": world,
            "space": {"optim": {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}},
            "study": {
                "sampler": "random",
                "objective": "validation-loss",
                "start": [{"learning_rate": 1e-5}, {"learning_rate": 1e-4}],
                "guard": {"constraints": {}},
            },
            "stop": {"min_samples": 8, "min_trials": 1, "confidence": 0.0, **stop},
            "budget": {"trials": 3, "samples": 10_000},
        }
    )


def run(spec: SweepSpec, folder: Path):
    return Controller(spec, folder, InlineExecutor(), MemoryTracker()).run()


def test_what_was_paused_and_resumed_ends_as_if_it_had_run_on(tmp_path):
    (tmp_path / "world").mkdir()
    world = make_world(tmp_path / "world")
    whole = run(sweep(world, rule="none"), tmp_path / "whole")
    paused = run(sweep(world, rule="median", pause=True), tmp_path / "paused")
    log = list(read_records(tmp_path / "paused" / "events.jsonl"))
    thawed = [record.data["trial"] for record in log if record.kind == "thawed"]
    assert thawed
    for number, trial in paused.trials.items():
        straight = whole.trials[number]
        assert trial.state is TrialState.COMPLETE, trial.reason
        assert trial.resumed == thawed.count(number)
        assert trial.params == straight.params
        assert trial.redone == 0
        assert [s.samples for s in trial.scores] == [s.samples for s in straight.scores]
        for mine, other in zip(trial.scores, straight.scores, strict=True):
            assert mine.mir["mir"] == pytest.approx(other.mir["mir"], abs=1e-4)
            assert mine.guard.validation_loss == pytest.approx(
                other.guard.validation_loss, abs=1e-4
            )
