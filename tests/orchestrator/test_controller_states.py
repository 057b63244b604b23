"""The controller's whole state machine under random scores, failures, kills, repeats and delays."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from puppet import Stage
from small_world import EVERY, SAMPLES, Killed, lost, make_sweep

from jobs.events import Failed
from orchestrator.budget import trials_left
from orchestrator.control import Request, post, waiting
from orchestrator.eventlog import read_records
from orchestrator.fold import load_view
from orchestrator.state import TrialState
from orchestrator.views.standing import best_trial
from sweeps.spec import BudgetSpec, StopSpec

TOLD = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAILED: "FAIL"}
WHICH = st.integers(0, 7)
SCORED = range(EVERY, SAMPLES + 1, EVERY)
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
        self.stage = None

    @initialize(
        trials=st.integers(1, 6),
        cpus=st.integers(1, 3),
        pause=st.booleans(),
        sizes=st.sampled_from([(), (1, 2), (2, 1, 1)]),
        samples=st.sampled_from([None, SAMPLES, 3 * SAMPLES]),
        blind=st.sets(st.tuples(st.integers(0, 7), st.sampled_from(SCORED)), max_size=12),
        patience=st.integers(0, 2),
    )
    def begin(self, trials, cpus, pause, sizes, samples, blind, patience):
        enter = self._quick.enter_context
        enter(mock.patch("orchestrator.controller.POLL_S", 0.0))
        enter(mock.patch("orchestrator.trackers.background.BACKOFF_S", (0.001,)))
        enter(mock.patch("orchestrator.controller.FLUSH_S", 0.02))
        stop = StopSpec(
            min_samples=EVERY, min_trials=2, confidence=0.0, pause=pause,
            infeasible_patience=patience,
        )  # fmt: skip
        spec = make_sweep(trials, stop=stop)
        budget = BudgetSpec(trials=trials, samples=samples)
        spec = spec.model_copy(update={"budget": budget})
        self.asked = {}
        if sizes:
            space = {**spec.space, "resources": {"workers": {"choices": [1, 2]}}}
            spec = spec.model_copy(update={"space": space})
        self.least = max(sizes, default=1)
        cpus = float(max(cpus, self.least))
        self.stage = Stage(Path(self._folder.name), spec, cpus, sizes)
        self.stage.jobs.blind = blind
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
    @rule(left=st.integers(0, 4))
    def the_controller_is_killed_while_it_does_what_it_was_asked_for(self, left):
        self.stage.fuse.left = left
        self.ask(Request(verb="extend", trials=1))
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

    @precondition(running)
    @rule(verb=st.sampled_from(["pause", "resume", "drain", "stop"]))
    def somebody_steers_the_controller(self, verb):
        self.ask(Request(verb=verb))

    @precondition(running)
    @rule()
    def it_is_resumed_twice(self):
        self.ask(Request(verb="resume"), Request(verb="resume"))
        if self.running() and not waiting(self.stage.folder):  # one that leaves hears no more
            assert not load_view(self.stage.folder).held

    @rule(trials=st.integers(0, 2), samples=st.sampled_from([0, EVERY, SAMPLES]))
    def somebody_gives_a_larger_budget(self, trials, samples):
        self.ask(Request(verb="extend", trials=trials, samples=samples))

    @rule(rate=st.sampled_from([1e-3, 1e-2, 2e-2]))
    def somebody_has_a_point_to_try(self, rate):
        self.ask(Request(verb="enqueue", point={"learning_rate": rate}))

    @rule()
    def failed_trials_are_tried_again(self):
        self.ask(Request(verb="retry"))

    def ask(self, *requests):
        for request in requests:
            self.asked[post(self.stage.folder, request).stem] = request
        if self.running():
            self.stage.turn(lambda executor: ())

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
        assert self.stage is None or not self.stage.crowded

    @invariant()
    def what_runs_is_what_the_log_says(self):
        if self.stage is None or not self.running():
            return
        view = load_view(self.stage.folder)
        said = sorted(n for n, t in view.trials.items() if t.state is TrialState.RUNNING)
        assert said == self.stage.executor.running

    @invariant()
    def a_paused_trial_may_return(self):
        if self.stage is None:
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
        try:
            if self.stage is not None:
                self._to_the_end()
                check(self.stage, self.asked)
        finally:
            if self.stage is not None and self.running():
                self.stage.turn(Killed())
            self._quick.close()
            self._folder.cleanup()

    def _to_the_end(self):
        stage = self.stage
        stage.storage.lasts, stage.cpus = False, 2.0
        if self.running():
            self.ask(Request(verb="resume"))
        for _ in range(2000):
            if self.running():
                stage.executor.resize(2.0)
                stage.turn(lambda executor: executor.move(0))
            elif getattr(stage.ended, "ended", None) is None or waiting(stage.folder):
                stage.begin()
            elif all(trial.state.final for trial in stage.ended.trials.values()) and (
                not trials_left(stage.ended)
            ):
                return
            else:
                assert "samples is spent" in stage.ended.note
                self.ask(Request(verb="extend", samples=SAMPLES))
        raise AssertionError("the sweep never ends")


def check(stage, asked):
    """What must hold of a finished sweep, whatever happened on the way. asked: requests by name."""
    view = load_view(stage.folder)
    assert stage.ended == view
    # Every budgeted trial is there, each with one final state in the log, Optuna and the tracker.
    assert sorted(view.trials) == list(range(view.spec.budget.trials))
    records = list(read_records(stage.folder / "events.jsonl"))
    # What people asked for was carried out once; a retry, where there was something to try again.
    larger = [record.data for record in records if record.kind == "extended"]
    taken = {data["request"]: len(data.get("points", ())) for data in larger}
    assert len(taken) == len(larger)
    lasting = {name for name, request in asked.items() if request.verb in ("extend", "enqueue")}
    assert lasting <= set(taken) <= set(asked)
    more = sum(asked[name].trials + points for name, points in taken.items())
    assert view.spec.budget.trials == stage.spec.budget.trials + more
    endings = Counter(record.data["trial"] for record in records if record.kind == "ended")
    assert endings == Counter(list(view.trials))
    assert stage.study.states() == {n: TOLD[t.state] for n, t in view.trials.items()}
    assert set(stage.study.tellings.values()) == {1}
    for number, trial in view.trials.items():
        tracked = stage.tracker.trials[number]
        assert (tracked.state, tracked.reason) == (trial.state, trial.reason)
        samples = [scored.samples for scored in trial.scores]
        assert samples == sorted(set(samples))
        steps = [step.samples for step in trial.whole().steps]
        assert steps == sorted(set(steps))
        assert trial.state is not TrialState.COMPLETE or samples[-1] == SAMPLES
        # What does not count is never a value, in the log or in Optuna.
        counting = [at for at in samples if (number, at) not in stage.jobs.blind]
        counted = zip(samples, trial.counted, strict=True)
        assert [at for at, counts in counted if counts] == counting
        assert sorted(stage.study.reports.get(number, {})) == counting
    best = best_trial(view)
    assert best is None or (best.number, best.scores[-1].samples) not in stage.jobs.blind
    # Going on with what is finished changes nothing.
    ran = dict(stage.jobs.ran)
    stage.begin()
    assert stage.executor is None
    assert stage.ended.trials == view.trials
    assert dict(stage.jobs.ran) == ran
    assert set(stage.study.tellings.values()) == {1}


@pytest.mark.parametrize("moves", range(1, 12))
def test_whatever_comes_twice_in_an_attempt_changes_nothing(moves):
    """A second start once took back the scores that had come since the first."""
    for back in range(moves):
        sweep = Sweep()
        try:
            sweep.begin(
                trials=1, cpus=1, pause=False, sizes=(), samples=None, blind=set(), patience=0
            )
            for _ in range(moves):
                sweep.stage.turn(lambda executor: executor.move(0))
            before = load_view(sweep.stage.folder).trials[0]
            sweep.stage.turn(lambda executor, back=back: executor.repeat(back))
            assert load_view(sweep.stage.folder).trials[0] == before
        finally:
            sweep.teardown()


Sweep.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSweep = Sweep.TestCase
