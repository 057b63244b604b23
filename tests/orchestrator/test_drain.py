"""How trials stand whose jobs were asked to leave and have not left yet, or leave late."""

from __future__ import annotations

import itertools
import math

import pytest
from small_world import EVERY, SAMPLES, FakeJobs, FakeStudy, lost, make_sweep

from orchestrator.control import Request, post
from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.decision import Verdict
from sweeps.spec import BudgetSpec, ResourceSpec, StopSpec


class Deaf(InlineExecutor):
    """Its jobs never hear that they are to leave."""

    def stop(self, trial, reason):
        pass


@pytest.mark.parametrize("pause", [False, True])
def test_a_verdict_outlasts_a_budget_whose_jobs_do_not_leave(tmp_path, monkeypatch, pause):
    monkeypatch.setattr("orchestrator.controller.DRAIN_S", -math.inf)
    stop = StopSpec(min_samples=EVERY, min_trials=2, confidence=0.0, pause=pause)
    spec = make_sweep(4, stop=stop)
    # The third trial is judged at its first score, and goes on; then the budget is spent.
    budget = BudgetSpec(trials=4, samples=2 * SAMPLES + EVERY + 1)
    spec = spec.model_copy(update={"budget": budget})
    study, tracker, clock = (
        FakeStudy(spec, rates=[1e-2, 1.1e-2, 9e-2]),
        MemoryTracker(),
        itertools.count(),
    )
    executor = Deaf(FakeJobs(), nodes=((1.0, 0.0),))
    view = Controller(
        spec, tmp_path / "s", executor, tracker,
        open_study=lambda *_: study, clock=lambda: float(next(clock)),
    ).run()  # fmt: skip
    assert "is spent" in view.note and view.ended is not None
    trial = view.trials[2]
    assert trial.verdict is (Verdict.PAUSE if pause else Verdict.PRUNE)
    assert trial.samples > trial.verdict_samples
    assert (trial.state, trial.reason) == (TrialState.PRUNED, trial.verdict_reason)
    assert study.told[2] == ("PRUNED", None)
    assert tracker.trials[2].state == "pruned"


class Hasty(FakeJobs):
    """During the second trial a person pauses the sweep, and resumes it before its job has left."""

    def __init__(self, folder, **fields):
        super().__init__(**fields)
        self.folder, self.verbs = folder, ["pause", "resume"]

    def __call__(self, spec, place):
        while place.folder.name == "0001" and self.verbs:
            post(self.folder, Request(verb=self.verbs.pop(0)))
        return super().__call__(spec, place)


@pytest.mark.parametrize("executor", [InlineExecutor, Deaf])  # it leaves, or is killed
def test_a_job_that_leaves_after_the_sweep_was_resumed_was_paused_all_the_same(
    tmp_path, monkeypatch, executor
):
    monkeypatch.setattr("orchestrator.controller.POLL_S", 0.0)
    none = StopSpec(rule="none", infeasible_patience=0)
    spec = make_sweep(3, stop=none, resources=ResourceSpec(max_restarts=0))
    jobs = Hasty(tmp_path / "s", failures={1: [lost("killed")]})
    view = Controller(
        spec, tmp_path / "s", executor(jobs), MemoryTracker(), open_study=lambda *_: FakeStudy(spec)
    ).run()
    records = read_records(tmp_path / "s" / "events.jsonl")
    left = [record.data for record in records if record.kind == "requeued"]
    assert [(one["trial"], one["state"], one["reason"], one["counted"]) for one in left] == [
        (1, "paused", "paused; `mirsweep resume` goes on", False)
    ]
    assert {trial.state for trial in view.trials.values()} == {TrialState.COMPLETE}
    assert view.trials[1].restarts == 0
