"""Pause and promote: paused trials keep their checkpoint, the best go on, none is lost."""

from __future__ import annotations

import random
from html import escape

import pytest
from small_world import EVERY, SAMPLES, FakeJobs, FakeStudy, Fuse, Fused, Killed, make_sweep

from jobs.events import Failed, Stopped
from orchestrator.controller import Controller
from orchestrator.endings import Leaving, ending
from orchestrator.eventlog import read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.ledger import ledger
from orchestrator.ports import Capacity
from orchestrator.report.tables import stopped
from orchestrator.retention import GIB, Stored, removals
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.views.leaderboard import ending as ending_of
from orchestrator.views.live import render
from orchestrator.views.standing import seconds_left
from sweeps.decision import Verdict
from sweeps.spec import BudgetSpec, ResourceSpec, RetentionSpec, StopSpec

STOP = StopSpec(min_samples=EVERY, min_trials=2, confidence=0.0, pause=True, reduction_factor=2)

RATES = [1e-2, 1.5e-2, 3e-2, 8e-2, 9e-2, 2e-2]


class World:
    """What outlives controllers."""

    def __init__(self, folder, spec, rates=None, slots=1):
        self.folder, self.spec, self.slots = folder / "study", spec, slots
        self.jobs, self.study, self.tracker = FakeJobs(), FakeStudy(spec), MemoryTracker()
        self.study.rates += rates or ()
        self.now = 0.0

    def clock(self):
        self.now += 0.01
        return self.now

    def run(self, fuse=None, spec=None):
        study = Fused(self.study, fuse) if fuse else self.study
        return Controller(
            spec or self.spec,
            self.folder,
            InlineExecutor(self.jobs, slots=self.slots, nodes=((4.0, 0.0),)),
            Fused(self.tracker, fuse) if fuse else self.tracker,
            open_study=lambda *_: study,
            clock=self.clock,
        ).run()

    def records(self, kind):
        log = read_records(self.folder / "events.jsonl")
        return [record.data for record in log if record.kind == kind]


def test_a_trial_that_others_fall_behind_goes_on_before_anything_new(tmp_path):
    # Trial 2 is behind the median of two better ones; then two worse ones come.
    world = World(tmp_path, make_sweep(6, stop=STOP), RATES)
    view = world.run()
    paused = [data["trial"] for data in world.records("judged") if data["verdict"] == "pause"]
    thawed = world.records("thawed")
    assert paused[0] == 2
    assert thawed[0]["trial"] == 2
    assert thawed[0]["reason"].startswith("resumed, no longer worse beyond error: MIR ")
    order = [data["trial"] for data in world.records("launched")]
    again = order.index(2, order.index(2) + 1)
    assert again < order.index(5)  # a new trial came after it
    assert view.trials[2].resumed >= 1


def test_a_resumed_trial_goes_on_from_its_checkpoint_and_sees_no_sample_twice(tmp_path):
    world = World(tmp_path, make_sweep(6, stop=STOP), RATES)
    view = world.run()
    assert world.records("thawed")
    for number, trial in view.trials.items():
        assert world.jobs.trained[number] == trial.samples
        assert trial.redone == 0
        samples = [scored.samples for scored in trial.scores]
        assert samples == sorted(set(samples))


def test_those_never_resumed_end_as_stopped_told_once(tmp_path):
    world = World(tmp_path, make_sweep(10, stop=STOP))
    view = world.run()
    left = [t for t in view.trials.values() if t.state is TrialState.PRUNED]
    assert left
    for trial in left:
        assert trial.verdict is Verdict.PAUSE
        assert trial.reason == f"{trial.verdict_reason}; it was not resumed"
        assert "against a median" in trial.reason
    assert all(t.state.final for t in view.trials.values())
    assert set(world.study.tellings.values()) == {1}
    assert ledger(view, world.now).stopped == len(left)
    assert ledger(view, world.now).paused == 0


def test_room_beside_a_running_trial_goes_to_the_most_promising(tmp_path):
    # Two at once: trials 0 and 1 end, 2 and 3 are paused, and 4, the best, runs on alone.
    rates = [1e-2, 1.2e-2, 4e-2, 6e-2, 1.1e-2]
    world = World(tmp_path, make_sweep(5, stop=STOP), rates, slots=2)
    world.run()
    thawed = world.records("thawed")
    assert thawed[0]["trial"] == 2
    assert thawed[0]["reason"].startswith("resumed, nothing better to begin: MIR ")


def test_a_budget_besides_the_trials_is_spent_on_paused_trials(tmp_path):
    spec = make_sweep(6, stop=STOP)
    rich = spec.model_copy(update={"budget": BudgetSpec(trials=6, samples=10_000)})
    view = World(tmp_path / "rich", rich).run()
    assert all(t.state is TrialState.COMPLETE for t in view.trials.values())
    poor = World(tmp_path / "poor", spec).run()
    assert any(t.state is TrialState.PRUNED for t in poor.trials.values())


def test_when_the_budget_is_spent_paused_trials_end_with_their_reason(tmp_path):
    spec = make_sweep(8, stop=STOP)
    spec = spec.model_copy(update={"budget": BudgetSpec(trials=8, samples=5 * SAMPLES)})
    view = World(tmp_path, spec).run()
    assert all(t.state.final for t in view.trials.values())
    assert view.samples >= 5 * SAMPLES
    assert "the budget of 320 samples is spent" in view.note


@pytest.mark.parametrize("seed", range(8))
def test_killed_anywhere_and_run_again_nothing_is_lost_or_told_twice(tmp_path, seed):
    world = World(tmp_path, make_sweep(7, stop=STOP, seed=seed), slots=1 + seed % 2)
    rng, killed = random.Random(seed), 0
    for burns in (*(rng.randint(20, 250) for _ in range(5)), None):
        try:
            view = world.run(Fuse(burns))
            break
        except Killed:
            killed += 1
            for number, trial in load_view(world.folder).trials.items():
                assert not (trial.frozen and number in world.study.told)
    assert killed
    assert view.ended is not None
    assert sorted(view.trials) == list(range(7))
    assert all(trial.state.final for trial in view.trials.values())
    assert set(world.study.tellings.values()) == {1}
    assert {n: t.state for n, t in world.tracker.trials.items()} == {
        n: t.state for n, t in view.trials.items()
    }
    for trial in view.trials.values():
        assert [s.samples for s in trial.scores] == sorted({s.samples for s in trial.scores})
    assert not [n for n in world.study.waits if view.trials[n].state is TrialState.COMPLETE]


def test_interrupted_a_paused_trial_waits_and_is_not_run_at_once(tmp_path):
    world = World(tmp_path, make_sweep(4, stop=STOP), [1e-2, 1.1e-2, 5e-2, 1e-2])
    heard = world.tracker.trial_left

    def left(trial, state, reason):
        heard(trial, state, reason)
        if trial == 2:
            raise KeyboardInterrupt

    world.tracker.trial_left = left
    with pytest.raises(KeyboardInterrupt):
        world.run()
    world.tracker.trial_left = heard
    view = load_view(world.folder)
    assert view.trials[2].frozen
    assert 2 not in world.study.told
    text = str(render(view, view.updated).renderables[0])
    assert "1 paused by a rule" in text
    assert ending_of(view.trials[2]) == view.trials[2].reason
    assert escape(view.trials[2].reason) in stopped(view)
    saved = ledger(view, view.updated)
    assert (saved.stopped, saved.paused) == (1, 1)
    assert "1 (paused: 1) early" in dict(saved.lines())["saved"]
    launched = len(world.records("launched"))
    assert world.run().ended is not None
    assert world.records("launched")[launched]["trial"] != 2
    assert world.study.tellings[2] == 1


class Shrinking(InlineExecutor):
    """A cluster that grows by demand, and gives its nodes back as soon as nobody needs them."""

    def capacity(self):
        return super().capacity() if self._jobs else Capacity(nodes=())


def test_a_cluster_that_has_shrunk_to_nothing_does_not_keep_the_sweep_open(tmp_path):
    world = World(tmp_path, make_sweep(4, stop=STOP, resources=ResourceSpec(autoscale=True)))
    view = Controller(
        world.spec, world.folder, Shrinking(world.jobs), world.tracker,
        open_study=lambda *_: world.study, clock=world.clock,
    ).run()  # fmt: skip
    assert view.ended is not None
    assert any("it was not resumed" in trial.reason for trial in view.trials.values())


def trial(number=0, **fields):
    spec = make_sweep(stop=STOP)
    return TrialView(number=number, job=spec.base, params={}, **fields)


PAUSING = {"verdict": Verdict.PAUSE, "verdict_reason": "worse", "state": TrialState.RUNNING}


@pytest.mark.parametrize(
    ("word", "leaving", "state", "reason"),
    [
        (Stopped(samples=8, reason="x"), None, TrialState.PAUSED, "worse"),
        (Failed(kind="worker-lost", reason="x"), None, TrialState.PAUSED, "worse"),
        (Stopped(samples=8, reason="x"), Leaving(reason="SIGINT"), TrialState.PAUSED, "worse"),
        (
            Stopped(samples=8, reason="x"),
            Leaving(reason="b", final=True),
            TrialState.PRUNED,
            "worse",
        ),
        (Failed(kind="diverged", reason="NaN"), None, TrialState.FAILED, "diverged: NaN"),
        (Failed(kind="disk-full", reason="x"), None, TrialState.PAUSED, "disk-full: x; free some"),
    ],
)
def test_how_a_pause_leaves_its_trial(word, leaving, state, reason):
    how = ending(trial(**PAUSING), word, make_sweep(stop=STOP), leaving)
    assert how.state is state
    assert how.reason.startswith(reason)


def stored(number, samples, size=GIB):
    from pathlib import Path

    path = Path(f"{number:04d}/checkpoints/samples-{samples:012d}")
    return Stored(trial=number, path=path, size=size)


def test_a_paused_trial_keeps_its_newest_checkpoint_and_a_stopped_one_none():
    spec = make_sweep(stop=STOP)
    spec = spec.model_copy(update={"retention": RetentionSpec(quota_gib=0.5)})
    frozen = trial(0, **{**PAUSING, "state": TrialState.PAUSED})
    stopped = trial(1, state=TrialState.PRUNED)
    view = SweepView(spec=spec, trials={0: frozen, 1: stopped})
    found = [stored(0, 16), stored(0, 32), stored(1, 16)]
    assert [r.stored for r in removals(view, found)] == [found[2], found[0]]


def test_the_time_left_does_not_count_on_paused_trials():
    done = trial(0, state=TrialState.COMPLETE, samples=SAMPLES, ended=10.0)
    half = trial(1, **PAUSING, samples=SAMPLES // 2)
    waits = trial(1, **{**PAUSING, "state": TrialState.PAUSED}, samples=SAMPLES // 2)
    spec = make_sweep(2, stop=STOP)
    views = [SweepView(spec=spec, trials={0: done, 1: one}, session=0.0) for one in (half, waits)]
    assert seconds_left(views[0], 10.0) > 0
    assert seconds_left(views[1], 10.0) == 0
