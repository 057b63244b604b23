"""Paused trials under a quota: who gives up its checkpoint, and how long space is waited for."""

from __future__ import annotations

import time

import pytest
from small_world import BATCH, EVERY, make_sweep
from test_pause import STOP, World

from mir.errors import ClusterError
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.keeper import Keeper
from orchestrator.retention import GIB, remove
from orchestrator.state import TrialState
from sweeps.spec import BudgetSpec, RetentionSpec


def saving(runner, kept):
    """Jobs of bad trials have checkpoints of four bytes, which `kept` lists."""

    def jobs(job, place):
        for event in runner(job, place):
            if event.event == "checkpointed" and job.optim.learning_rate > 3e-2:
                folder = place.folder / "checkpoints" / f"samples-{event.samples:012d}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "weights").write_text("much")
                kept.append(folder)
            yield event

    return jobs


@pytest.fixture
def crowded(tmp_path, monkeypatch):
    """Two good trials end, two bad ones are paused, and the quota holds one of theirs.

    The keeper has carried out what it can before the loop goes on.
    """
    said = Keeper.saved_or_ended
    monkeypatch.setattr(
        Keeper, "saved_or_ended", lambda keeper, number: (said(keeper, number), keeper.flush(2.0))
    )
    update = {
        "retention": RetentionSpec(quota_gib=5 / GIB),
        "budget": BudgetSpec(trials=4, samples=10_000),
    }
    spec = make_sweep(4, stop=STOP).model_copy(update=update)
    world = World(tmp_path, spec, [1e-2, 1.1e-2, 8e-2, 6e-2])
    world.jobs = saving(world.jobs, [])
    return world


def test_when_one_of_the_last_paused_gives_up_its_checkpoint_the_others_still_go_on(crowded):
    view = crowded.run()
    assert "given up: checkpoints take" in view.trials[2].reason
    assert view.trials[3].state is TrialState.COMPLETE


class Clock:
    """Goes on only when told to; for the loop and the keeper."""

    def __init__(self, patch):
        self.now, self.waited = 0.0, 0
        patch.setattr("orchestrator.controller.time", self)
        patch.setattr("orchestrator.keeper.time", self)

    def monotonic(self):
        return self.now

    time, sleep = staticmethod(time.time), staticmethod(time.sleep)


@pytest.fixture
def clock(monkeypatch):
    """Goes on by 20 s whenever the loop has waited in vain for the keeper, which is `waited`."""
    clock, flush = Clock(monkeypatch), Keeper.flush

    def flushed(keeper, timeout_s):
        done = flush(keeper, timeout_s)
        if not done and timeout_s < 1.0:
            clock.waited += 1
            clock.now += 20.0
        return done

    monkeypatch.setattr(Keeper, "flush", flushed)
    return clock


def test_a_removal_that_takes_its_time_is_waited_for(crowded, clock, monkeypatch):
    def slowly(stored):
        for _ in range(300):
            if clock.waited < 4:
                time.sleep(0.02)
        remove(stored)

    monkeypatch.setattr("orchestrator.keeper.remove", slowly)
    assert crowded.run().trials[3].state is TrialState.COMPLETE
    assert clock.waited >= 4


def test_what_could_not_be_removed_while_a_trial_ran_may_still_go_when_it_has_ended(
    crowded, clock, monkeypatch
):
    jobs, ended = crowded.jobs, []

    def last(job, place):
        for event in jobs(job, place):
            if place.folder.name == "0005" and event.event == "finished":
                clock.now += 60.0
                ended.append(clock.waited)
            yield event

    def refuse(stored):
        if not ended or clock.waited == ended[0]:
            raise OSError(f"{stored.path} is busy")
        remove(stored)

    crowded.jobs, crowded.slots = last, 3
    budget = BudgetSpec(trials=6, samples=10_000)
    crowded.spec = crowded.study.spec = crowded.spec.model_copy(update={"budget": budget})
    crowded.study.rates[:] = [1e-2, 1e-2, 1e-2, 8e-2, 6e-2, 1e-2]
    monkeypatch.setattr("orchestrator.keeper.remove", refuse)
    monkeypatch.setattr("orchestrator.trackers.background.BACKOFF_S", (0.01,))
    assert crowded.run().trials[4].state is TrialState.COMPLETE
    assert ended[0] > 0


def test_where_giving_up_brings_no_space_the_sweep_ends_and_the_others_stay_paused(
    crowded, monkeypatch
):
    def refused(stored):
        raise OSError(f"{stored.path} is read-only")

    monkeypatch.setattr("orchestrator.keeper.remove", refused)
    monkeypatch.setattr("orchestrator.controller.FLUSH_S", 0.0)
    with pytest.raises(ClusterError, match=r"raise retention\.quota_gib"):
        crowded.run()
    left = load_view(crowded.folder).trials
    assert (left[2].state, left[3].state) == (TrialState.PRUNED, TrialState.PAUSED)


def test_where_the_quota_is_full_the_least_promising_gives_up_its_checkpoint(tmp_path):
    spec = make_sweep(6, stop=STOP)
    spec = spec.model_copy(update={"retention": RetentionSpec(quota_gib=1e-9)})
    world = World(tmp_path, spec, [1e-2, 1.1e-2, 4e-2, 8e-2, 6e-2, 1.05e-2])
    calls = []
    executor = InlineExecutor(saving(world.jobs, calls), nodes=((4.0, 0.0),))
    controller = Controller(
        spec, world.folder, executor, world.tracker,
        open_study=lambda *_: world.study, clock=world.clock,
    )  # fmt: skip
    view = controller.run()
    assert view.ended is not None
    given = [t for t in view.trials.values() if "given up: checkpoints take" in t.reason]
    assert given
    assert calls
    assert not any(path.exists() for path in calls)
    assert BATCH < EVERY
