"""The controller's whole state machine under random scores, failures, kills, repeats and delays."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from puppet import Stage
from small_world import EVERY, SAMPLES, Killed, lost, make_sweep

from jobs.events import Failed
from orchestrator.eventlog import read_records
from orchestrator.fold import load_view
from orchestrator.state import TrialState
from sweeps.spec import StopSpec

TOLD = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAILED: "FAIL"}
WHICH = st.integers(0, 7)
FAILURES = st.sampled_from(
    [
        lost(),
        Failed(kind="preempted", reason="taken back"),
        Failed(kind="out-of-memory", reason="full"),
        Failed(kind="diverged", reason="loss is NaN"),
        Failed(kind="bad-data", reason="a.jpg is no picture"),
        Failed(kind="disk-full", reason="no space left"),
        Failed(kind="no-resources", reason="none"),
        Failed(kind="error", reason="whatever"),
    ]
)


class Sweep(RuleBasedStateMachine):
    """One sweep: anything may happen to it, and in the end it is let run to its end."""

    def __init__(self):
        super().__init__()
        self._folder = TemporaryDirectory()
        self._quick = ExitStack()

    @initialize(
        trials=st.integers(1, 6),
        cpus=st.integers(1, 3),
        pause=st.booleans(),
        sizes=st.sampled_from([(), (1, 2), (2, 1, 1)]),
    )
    def begin(self, trials, cpus, pause, sizes):
        enter = self._quick.enter_context
        enter(mock.patch("orchestrator.trackers.background.BACKOFF_S", (0.001,)))
        enter(mock.patch("orchestrator.controller.FLUSH_S", 0.02))
        stop = StopSpec(min_samples=EVERY, min_trials=2, confidence=0.0, pause=pause)
        spec = make_sweep(trials, stop=stop)
        if sizes:
            space = {**spec.space, "resources": {"workers": {"choices": [1, 2]}}}
            spec = spec.model_copy(update={"space": space})
        self.least = max(sizes, default=1)
        cpus = float(max(cpus, self.least))
        self.stage = Stage(Path(self._folder.name), spec, cpus, sizes)
        enter(self.stage.played())
        self.stage.begin()

    def running(self):
        return self.stage.executor is not None

    @precondition(running)
    @rule(which=WHICH, times=st.integers(1, 9))
    def jobs_say_something(self, which, times):
        for n in range(times):
            if self.running():
                self.stage.turn(lambda executor, n=n: executor.move(which + n))

    @precondition(running)
    @rule(which=WHICH, failure=FAILURES)
    def a_job_fails(self, which, failure):
        self.stage.turn(lambda executor: executor.fail(which, failure))

    @precondition(running)
    @rule(which=WHICH)
    def a_job_finds_its_place_taken_for_a_while(self, which):
        self.stage.turn(lambda executor: executor.crowd(which))

    @precondition(running)
    @rule(back=st.integers(0, 60))
    def something_comes_twice_or_late(self, back):
        self.stage.turn(lambda executor: executor.repeat(back))

    @precondition(running)
    @rule()
    def nothing_happens(self):
        self.stage.turn(lambda executor: ())

    @precondition(running)
    @rule(left=st.integers(0, 30), which=WHICH)
    def the_controller_is_killed_in_the_middle_of_something(self, left, which):
        self.stage.fuse.left = left
        for n in range(left + 1):
            if self.running():
                self.stage.turn(lambda executor, n=n: executor.move(which + n))
        self.stage.fuse.left = None

    @precondition(running)
    @rule()
    def the_controller_is_killed_while_it_waits(self):
        self.stage.turn(Killed())

    @precondition(lambda self: not self.running())
    @rule()
    def it_is_run_again(self):
        self.stage.begin()

    @precondition(running)
    @rule()
    def somebody_presses_ctrl_c(self):
        self.stage.interrupt.name = "SIGINT"

    @rule(cpus=st.integers(0, 3))
    def nodes_come_and_go(self, cpus):
        self.stage.cpus = float(max(cpus, self.least))
        if self.running():
            self.stage.executor.resize(float(cpus))

    @rule(lasts=st.booleans())
    def the_storage_goes_and_comes_back(self, lasts):
        self.stage.storage.lasts = lasts

    @invariant()
    def no_resource_is_given_twice(self):
        assert not getattr(self, "stage", None) or not self.stage.crowded

    @invariant()
    def what_runs_is_what_the_log_says(self):
        if getattr(self, "stage", None) is None or not self.running():
            return
        view = load_view(self.stage.folder)
        said = sorted(n for n, t in view.trials.items() if t.state is TrialState.RUNNING)
        assert said == self.stage.executor.running

    @invariant()
    def a_paused_trial_may_return(self):
        if getattr(self, "stage", None) is None:
            return
        stage = self.stage
        view = load_view(stage.folder)
        for number, trial in view.trials.items():
            if trial.frozen:
                assert number not in stage.study.told
                assert trial.reason == trial.verdict_reason
            if trial.resumed:
                assert stage.spec.stop.pause

    def teardown(self):
        if getattr(self, "stage", None) is None:
            return
        try:
            self._to_the_end()
            check(self.stage)
        finally:
            if self.running():
                self.stage.turn(Killed())
            self._quick.close()
            self._folder.cleanup()

    def _to_the_end(self):
        stage = self.stage
        stage.storage.lasts, stage.cpus = False, 2.0
        for _ in range(2000):
            if self.running():
                stage.executor.resize(2.0)
                stage.turn(lambda executor: executor.move(0))
            elif getattr(stage.ended, "ended", None) is not None:
                return
            else:
                stage.begin()
        raise AssertionError("the sweep never ends")


def check(stage):
    """What must hold of a finished sweep, whatever happened on the way."""
    view = load_view(stage.folder)
    assert stage.ended == view
    # Every budgeted trial is there, each with one final state in the log, Optuna and the tracker.
    assert sorted(view.trials) == list(range(stage.spec.budget.trials))
    records = list(read_records(stage.folder / "events.jsonl"))
    endings = Counter(record.data["trial"] for record in records if record.kind == "ended")
    assert endings == Counter(list(view.trials))
    assert stage.study.states() == {n: TOLD[t.state] for n, t in view.trials.items()}
    assert set(stage.study.tellings.values()) == {1}
    for number, trial in view.trials.items():
        tracked = stage.tracker.trials[number]
        assert (tracked.state, tracked.reason) == (trial.state, trial.reason)
        samples = [scored.samples for scored in trial.scores]
        assert samples == sorted(set(samples))
        assert trial.state is not TrialState.COMPLETE or samples[-1] == SAMPLES
    # Going on with what is finished changes nothing.
    ran = dict(stage.jobs.ran)
    stage.begin()
    assert stage.executor is None
    assert stage.ended.trials == view.trials
    assert dict(stage.jobs.ran) == ran
    assert set(stage.study.tellings.values()) == {1}


Sweep.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSweep = Sweep.TestCase
