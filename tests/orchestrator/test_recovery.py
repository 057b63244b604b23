"""Kill the controller anywhere and run it again: none lost, none doubled, the very same trials."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_process import run_and_kill
from small_world import (
    SAMPLES,
    FakeJobs,
    FakeStudy,
    Fuse,
    Fused,
    Killed,
    lost,
    make_sweep,
    save,
)

from jobs.events import Failed, Finished, Scored, Started, Step, Stopped
from orchestrator.controller import Controller
from orchestrator.eventlog import EventLog, read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.decision import Verdict
from sweeps.spec import BudgetSpec, ResourceSpec, StopSpec
from sweeps.study import Study

TOLD = {
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAILED: "FAIL",
}


class World:
    """What outlives a controller: its folder, study, tracker and the jobs' checkpoints."""

    def __init__(self, root: Path, *, trials=6, slots=1, failures=None):
        self.spec = make_sweep(trials)
        self.folder = root / "study"
        self.jobs = FakeJobs({n: list(kinds) for n, kinds in (failures or {}).items()})
        self.study = FakeStudy(self.spec)
        self.tracker = MemoryTracker()
        self.slots = slots
        self.fuse = Fuse()
        self.executor = InlineExecutor
        self.nodes = ((9.0, 0.0),)
        self.clock = time.time

    def run(self, fuse: Fuse | None = None):
        self.fuse = fuse or Fuse()
        executor = self.executor(self.jobs, slots=self.slots, nodes=self.nodes)
        return Controller(
            self.spec,
            self.folder,
            Fused(executor, self.fuse),
            Fused(self.tracker, self.fuse),
            open_study=lambda spec, folder: Fused(self.study, self.fuse),
            clock=self.clock,
        ).run()


@pytest.fixture(autouse=True, scope="module")
def _log_burns_the_fuse():
    """Every write of a log may be the last thing a controller did, before or after it."""
    append, current = EventLog.append, World.run

    def run(self, fuse=None):
        def burning(log, *args, **kwargs):
            self.fuse()
            record = append(log, *args, **kwargs)
            self.fuse()
            return record

        EventLog.append = burning
        try:
            return current(self, fuse)
        finally:
            EventLog.append = append

    World.run = run
    yield
    World.run = current


def check(world: World, view) -> None:
    """What must hold of a finished sweep, whatever happened on the way."""
    assert sorted(view.trials) == list(range(world.spec.budget.trials))
    assert all(trial.state.final for trial in view.trials.values())
    assert load_view(world.folder) == view
    records = read_records(world.folder / "events.jsonl")
    endings = [record.data["trial"] for record in records if record.kind == "ended"]
    assert sorted(endings) == sorted(view.trials)
    assert world.study.states() == {n: TOLD[t.state] for n, t in view.trials.items()}
    assert set(world.study.tellings.values()) == {1}
    for number, trial in view.trials.items():
        tracked = world.tracker.trials[number]
        assert (tracked.state, tracked.reason) == (trial.state, trial.reason)
        told = {event.samples for event in tracked.events.values() if isinstance(event, Scored)}
        assert told >= {scored.samples for scored in trial.scores}
        samples = [scored.samples for scored in trial.scores]
        assert samples == sorted(set(samples))
        feasible = {s.samples for s, ok in zip(trial.scores, trial.counted, strict=True) if ok}
        assert set(world.study.reports.get(number, {})) >= feasible


def outcome(view):
    """What two runs of the same sweep must share."""
    return {
        n: (t.state, t.params, t.objective, [s.samples for s in t.scores])
        for n, t in view.trials.items()
    }


def test_the_uninterrupted_sweep_burns_a_known_fuse(tmp_path):
    world = World(tmp_path)
    check(world, world.run())
    assert world.fuse.burnt > 300


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 420), min_size=1, max_size=6))
def test_killed_anywhere_the_very_same_trials_come_out(kills):
    with TemporaryDirectory() as plain, TemporaryDirectory() as killed:
        expected = World(Path(plain)).run()
        world = World(Path(killed))
        for left in kills:
            try:
                world.run(Fuse(left))
            except Killed:
                continue
        view = world.run()
        check(world, view)
        assert outcome(view) == outcome(expected)


FAILURES = st.dictionaries(
    st.integers(0, 5),
    st.lists(
        st.sampled_from(
            [
                lost(),
                Failed(kind="diverged", reason="NaN"),
                Failed(kind="preempted", reason="taken back"),
                Failed(kind="out-of-memory", reason="full"),
                Failed(kind="no-resources", reason="none"),
            ]
        ),
        max_size=4,
    ),
)


class Clock:
    """A second passes with each look at it."""

    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_the_time_without_a_controller_is_no_device_time(tmp_path):
    """Killed on Friday, and again on Monday before it had caught up; done on Tuesday."""
    world, clock = World(tmp_path), Clock()
    resources = ResourceSpec(gpus_per_worker=1.0)
    budget = BudgetSpec(trials=6, gpu_hours=12.0)
    world.spec = world.spec.model_copy(update={"resources": resources, "budget": budget})
    world.study.spec, world.clock, world.nodes = world.spec, clock, ((9.0, 9.0),)
    with pytest.raises(Killed):
        world.run(Fuse(60))
    running = [t for t in load_view(world.folder).trials.values() if t.launched is not None]
    assert running
    for burns in (3, 14, None):
        clock.now += 60 * 3600.0
        with suppress(Killed):
            view = world.run(Fuse(burns))
    assert view.note == ""
    assert sorted(view.trials) == [0, 1, 2, 3, 4, 5]
    assert view.busy < 3600.0
    assert all(trial.seconds < 600.0 for trial in view.trials.values())
    check(world, view)


class Shuffled(InlineExecutor):
    """Jobs come in any order, and what was said is now and then said twice or late."""

    def __init__(self, *args, chance: random.Random, **kwargs):
        super().__init__(*args, **kwargs)
        self._chance = chance
        self._said = []

    def wait(self, timeout_s):
        self._jobs.rotate(self._chance.randrange(4))
        events = [*super().wait(timeout_s)]
        self._said = [*self._said[-5:], *events]
        if self._said and self._chance.random() < 0.2:
            events.append(self._chance.choice([s for s in self._said if s.event.event != "step"]
                                              or self._said))  # fmt: skip
        return events


@settings(max_examples=15, deadline=None)
@given(FAILURES, st.integers(1, 4), st.lists(st.integers(0, 500), max_size=4), st.integers(0, 99))
def test_whatever_fails_and_wherever_it_is_killed_every_trial_is_accounted_for(
    failures, slots, kills, seed
):
    with TemporaryDirectory() as folder:
        world = World(Path(folder), slots=slots, failures=failures)
        chance = random.Random(seed)
        world.executor = partial(Shuffled, chance=chance)
        for left in kills:
            try:
                world.run(Fuse(left))
            except Killed:
                continue
        check(world, world.run())
        assert world.jobs.most <= slots
        assert world.jobs.running == 0


def test_going_on_with_a_finished_sweep_changes_nothing(tmp_path):
    world = World(tmp_path)
    first = world.run()
    ran = dict(world.jobs.ran)
    again = world.run()
    assert outcome(again) == outcome(first)
    assert dict(world.jobs.ran) == ran
    assert set(world.study.tellings.values()) == {1}


def test_a_lost_database_is_made_again_from_the_log(tmp_path):
    world = World(tmp_path)
    first = world.run()
    told = dict(world.study.told)
    world.study, world.tracker = FakeStudy(world.spec), MemoryTracker()
    again = world.run()
    assert outcome(again) == outcome(first)
    assert world.study.told == told
    check(world, again)


def test_a_real_study_goes_on_after_kills(tmp_path):
    spec = make_sweep(4)
    jobs = FakeJobs()

    def controller(fuse):
        return Controller(
            spec,
            tmp_path / "study",
            InlineExecutor(jobs),
            MemoryTracker(),
            open_study=lambda *args: Fused(Study(*args), fuse),
        )

    for left in (7, 19, 30):
        with pytest.raises(Killed):
            controller(Fuse(left)).run()
    view = controller(Fuse()).run()
    assert sorted(view.trials) == [0, 1, 2, 3]
    study = Study(spec, tmp_path / "study")
    assert study.states() == {n: TOLD[t.state] for n, t in view.trials.items()}
    (tmp_path / "study" / "study.db").unlink()
    again = controller(Fuse()).run()
    assert outcome(again) == outcome(view)
    assert Study(spec, tmp_path / "study").states() == study.states()


def test_a_process_killed_with_kill_9_goes_on_by_the_same_command(tmp_path):
    log = tmp_path / "study" / "events.jsonl"
    run_and_kill(tmp_path / "study", MemoryTracker, (12, 30), trials=5, pause_s=0.003)
    view = load_view(tmp_path / "study")
    assert sorted(view.trials) == [0, 1, 2, 3, 4]
    assert all(trial.state.final for trial in view.trials.values())
    endings = [r.data["trial"] for r in read_records(log) if r.kind == "ended"]
    assert sorted(endings) == [0, 1, 2, 3, 4]
    complete = [t for t in view.trials.values() if t.state is TrialState.COMPLETE]
    assert all(trial.samples == SAMPLES for trial in complete)


class Exploding(FakeJobs):
    """A job whose training loss explodes right after its second checkpoint, and dies once.

    late: steps that it makes while its checkpoint is being written, before it tells it.
    every: samples from one checkpoint to the next.
    """

    dies_at: int | None = None
    late, every = 0, 16

    def loss(self, samples):
        return 2.0 - samples / 20 if samples <= 32 else 3.0

    def _events(self, number, spec, place):
        checkpoint = place.folder / "checkpoint.json"
        begin = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
        yield Started(ranks=1, device="cpu", trainable={}, resumed_samples=begin)
        saved = {}
        for samples in range(begin + 1, SAMPLES + 1):
            yield Step(
                samples=samples, loss=self.loss(samples), learning_rate=1, grad_norm=1,
                samples_per_second=1,
            )  # fmt: skip
            if samples == self.dies_at:
                self.dies_at = None
                raise Killed
            if samples % self.every == 0:
                saved[min(samples + self.late, SAMPLES)] = save(samples, checkpoint)
            if samples in saved:
                yield saved[samples]
            if place.stop_requested():
                yield Stopped(samples=samples, reason=place.stop_requested())
                return
        yield Finished(samples=SAMPLES, seconds=1.0)


class Calm(Exploding):
    """Its loss leaps twice and is calm again; both leaps counted twice would be an explosion."""

    late = 3

    def loss(self, samples):
        return 4.0 if samples in (18, 19) else 2.0 if samples <= 8 else 1.0


def watched(root, jobs, dies_at=None):
    """What becomes of its only trial, with a controller that dies there and is begun again."""
    world = World(root, trials=1)
    stop = StopSpec(rules=("divergence",), min_samples=8, infeasible_patience=0)
    world.spec = world.spec.model_copy(update={"stop": stop})
    world.study = FakeStudy(world.spec)
    world.jobs = jobs
    world.jobs.dies_at = dies_at
    with suppress(Killed):
        world.run()
    return world.run().trials[0]


def test_a_loss_that_explodes_across_a_restart_ends_its_trial_at_the_same_step(tmp_path):
    plain = watched(tmp_path / "plain", Exploding())
    assert plain.state is TrialState.PRUNED and "training loss" in plain.reason
    for dies_at in (3, 12, 17, 33, 36, plain.verdict_samples - 1):
        trial = watched(tmp_path / str(dies_at), Exploding(), dies_at)
        assert (trial.state, trial.reason, trial.verdict_samples) == (
            plain.state, plain.reason, plain.verdict_samples,
        )  # fmt: skip


@pytest.mark.parametrize("dies_at", [None, 18, 19, 20, 24])
def test_steps_heard_before_their_checkpoint_was_told_count_once_after_a_restart(tmp_path, dies_at):
    assert watched(tmp_path, Calm(), dies_at).verdict is Verdict.CONTINUE


def test_a_checkpoint_before_there_is_an_average_leaves_a_log_of_strict_json(tmp_path):
    jobs = Calm()
    jobs.every = 4
    watched(tmp_path, jobs, 5)
    log = (tmp_path / "study" / "events.jsonl").read_text()
    assert '"course":' in log
    assert "Infinity" not in log
