"""Which checkpoints of a study stay: by state, by rank, by quota; and what the controller does."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import FakeJobs, FakeStudy, make_sweep, score
from typer.testing import CliRunner

from mir.errors import ClusterError
from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.keeper import Keeper
from orchestrator.retention import GIB, Stored, all_stored, over_quota, removals, remove
from orchestrator.signals import Interrupt
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import RetentionSpec, StopSpec

PRUNED, COMPLETE, FAILED = TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAILED
RUNNING, PAUSED = TrialState.RUNNING, TrialState.PAUSED


def view(*trials, **retention):
    """trials: (state, MIR, whether it counts) in order of number."""
    spec = make_sweep().model_copy(update={"retention": RetentionSpec(**retention)})
    return SweepView(
        spec=spec,
        trials={
            n: TrialView(
                number=n, job=spec.base, params={}, state=state, scores=(score(64, mir),),
                feasible=feasible,
            )
            for n, (state, mir, feasible) in enumerate(trials)
        },
    )  # fmt: skip


def stored(trial, samples, size=1, leftover=False):
    name = f"{'.' if leftover else ''}samples-{samples:012d}"
    return Stored(trial=trial, path=Path(f"{trial}/{name}"), size=size, leftover=leftover)


def going(sweep, found):
    return [(r.stored.trial, r.stored.path.name[-3:]) for r in removals(sweep, found)]


def test_stopped_trials_lose_theirs_and_paused_ones_do_not():
    sweep = view((PRUNED, 3.0, True), (PAUSED, 3.0, True), (COMPLETE, 2.0, True), (FAILED, 2, None))
    found = [stored(n, samples) for n in range(4) for samples in (16, 32)]
    assert going(sweep, found) == [(0, "016"), (0, "032")]
    assert removals(sweep, found)[0].reason == "trial 0 was stopped"


def test_half_saves_go_once_nobody_writes_them():
    sweep = view((RUNNING, 3.0, True), (COMPLETE, 3.0, True))
    assert going(sweep, [stored(n, 16, leftover=True) for n in (0, 1)]) == [(1, "016")]


def test_the_best_by_rank_stay_and_what_does_not_count_comes_last():
    sweep = view(
        (COMPLETE, 2.5, True), (COMPLETE, 1.0, False), (COMPLETE, 2.0, True), (COMPLETE, 2.2, True),
        (RUNNING, 9.0, True), keep_best=2,
    )  # fmt: skip
    assert going(sweep, [stored(n, 64) for n in range(5)]) == [(0, "064"), (1, "064")]


def test_the_quota_takes_the_least_missed_first():
    sweep = view(
        (COMPLETE, 2.5, True), (COMPLETE, 2.0, True), (FAILED, 2.0, True), (RUNNING, 2.0, True),
        quota_gib=4.0,
    )  # fmt: skip
    found = [stored(n, samples, GIB) for n in range(4) for samples in (16, 32)]
    assert going(sweep, found) == [(2, "016"), (2, "032"), (0, "016"), (0, "032")]
    tight = sweep.spec.model_copy(update={"retention": RetentionSpec(quota_gib=0.5)})
    left = {(1, "016"), (1, "032"), (3, "032")}
    everything = {(n, s) for n in range(4) for s in ("016", "032")}
    assert set(going(SweepView(spec=tight, trials=sweep.trials), found)) == everything - left


def test_the_quota_never_takes_a_save_that_is_being_written():
    sweep = view((RUNNING, 2.0, True), quota_gib=0.5)
    found = [stored(0, 16, GIB), stored(0, 32, GIB), stored(0, 48, GIB, leftover=True)]
    assert going(sweep, found) == [(0, "016")]


STATES = st.sampled_from([PRUNED, COMPLETE, FAILED, RUNNING, PAUSED])
TRIALS = st.lists(st.tuples(STATES, st.floats(0, 5), st.booleans()), min_size=1, max_size=6)


@given(TRIALS, st.none() | st.integers(1, 3), st.none() | st.integers(1, 9), st.data())
def test_what_a_trial_needs_to_go_on_and_the_best_trial_are_never_taken(trials, best, quota, data):
    sweep = view(*trials, keep_best=best, quota_gib=quota)
    found = [
        stored(n, samples, GIB)
        for n in range(len(trials))
        for samples in data.draw(st.sets(st.sampled_from([16, 32, 64])))
    ]
    gone = {removal.stored for removal in removals(sweep, found)}
    assert len(gone) == len(removals(sweep, found))
    for number, (state, _, _) in enumerate(trials):
        mine = sorted((s for s in found if s.trial == number), key=lambda s: s.path.name)
        if state in (RUNNING, PAUSED) and mine:
            assert mine[-1] not in gone
        if state is PRUNED:
            assert gone >= set(mine)
    complete = [n for n, (state, _, _) in enumerate(trials) if state is COMPLETE]
    having = {s.trial for s in found}
    ranked = sorted(
        (n for n in complete if n in having), key=lambda n: (not trials[n][2], trials[n][1], n)
    )
    if ranked:
        assert not gone & {s for s in found if s.trial == ranked[0]}
    if quota is not None and sum(s.size for s in found if s not in gone) > quota * GIB:
        for state in (FAILED, PRUNED):
            assert not {s for s in found if trials[s.trial][0] is state} - gone


class Saving(FakeJobs):
    """Jobs whose checkpoints are folders of a given size."""

    size = 1000

    def __call__(self, spec, place):
        for event in super().__call__(spec, place):
            if event.event == "checkpointed":
                folder = place.folder / "checkpoints" / f"samples-{event.samples:012d}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "weights").write_bytes(b"x" * self.size)
            yield event


def run(folder, spec, jobs=None):
    executor = InlineExecutor(jobs or Saving(), nodes=((1.0, 0.0),))
    study = FakeStudy(spec)
    return Controller(spec, folder, executor, MemoryTracker(), open_study=lambda *_: study).run()


def test_while_a_sweep_runs_only_complete_trials_keep_their_checkpoints(tmp_path):
    sweep = run(tmp_path / "study", make_sweep(8))
    having = {s.trial for s in all_stored(tmp_path / "study" / "trials")}
    assert having == {n for n, t in sweep.trials.items() if t.state is COMPLETE}
    assert having != set(sweep.trials)


def test_the_quota_is_held_and_the_best_trial_kept(tmp_path):
    quota = RetentionSpec(quota_gib=9000 / GIB)
    sweep = run(tmp_path / "study", make_sweep(8).model_copy(update={"retention": quota}))
    found = all_stored(tmp_path / "study" / "trials")
    assert sum(s.size for s in found) <= 9000
    complete = [t for t in sweep.trials.values() if t.state is COMPLETE]
    assert min(complete, key=lambda t: t.objective).number in {s.trial for s in found}


def test_a_quota_that_one_trial_exceeds_stops_the_sweep_with_the_numbers(tmp_path):
    quota = RetentionSpec(quota_gib=500 / GIB)
    with pytest.raises(ClusterError, match=r"raise retention\.quota_gib"):
        run(tmp_path / "study", make_sweep(4).model_copy(update={"retention": quota}))


class Slow:
    """Taking the second trial's last checkpoint away lasts until Ctrl-C, which comes meanwhile, is
    heard. The controller waits for it: the quota was full when that trial ended."""

    def __init__(self, folder, patch):
        self.log, self.full, self.heard = folder / "events.jsonl", threading.Event(), None
        self.interrupt = Interrupt()
        self.jobs = Saving()
        patch.setattr("orchestrator.controller.listening", lambda: nullcontext(self.interrupt))
        patch.setattr("orchestrator.keeper.remove", self.remove)
        patch.setattr("orchestrator.keeper.over_quota", self.over_quota)

    def over_quota(self, spec, size):
        full = over_quota(spec, size)
        if full is not None:
            self.full.set()
        return full

    def __call__(self, spec, place):
        for event in self.jobs(spec, place):
            if event.event == "finished" and place.folder.name == "0001":
                assert self.full.wait(20.0)
            yield event

    def remove(self, stored):
        if stored.trial == 1 and stored.path.name.endswith("64"):
            self.interrupt.name = "SIGINT"
            deadline = time.monotonic() + 5.0
            while not self.heard and time.monotonic() < deadline:
                self.heard = any("SIGINT" in str(r.data) for r in read_records(self.log))
                time.sleep(0.01)
        remove(stored)


def test_ctrl_c_is_heard_while_a_checkpoint_that_goes_is_waited_for(tmp_path, monkeypatch):
    quota = RetentionSpec(quota_gib=4500 / GIB)  # a whole trial's, and not one checkpoint more
    spec = make_sweep(3, stop=StopSpec(rule="none")).model_copy(update={"retention": quota})
    slow = Slow(tmp_path / "study", monkeypatch)
    executor = InlineExecutor(slow, nodes=((1.0, 0.0),))
    study = FakeStudy(spec, rates=[1e-2, 9e-2])
    Controller(
        spec, tmp_path / "study", executor, MemoryTracker(), open_study=lambda *_: study
    ).run()
    assert slow.heard


def test_what_another_trial_has_saved_meanwhile_is_measured_before_it_goes(tmp_path):
    def save(number, *samples):
        for at in samples:
            folder = tmp_path / f"{number:04d}" / "checkpoints" / f"samples-{at:012d}"
            folder.mkdir(parents=True)
            (folder / "weights").write_bytes(b"x" * 1000)

    sweep = view((RUNNING, 2.0, True), (RUNNING, 2.0, True), quota_gib=3500 / GIB)
    with closing(Keeper(tmp_path, lambda: sweep)) as keeper:
        save(0, 16, 32, 48)  # nobody has told of it yet
        save(1, 16, 32, 48, 64)
        keeper.saved_or_ended(1)
        assert keeper.flush(10.0)
        assert keeper.full is None
    assert sum(s.size for s in all_stored(tmp_path)) <= 3500


def test_gc_says_what_would_go_and_then_removes_it(tmp_path):
    run(tmp_path / "study", make_sweep(8))
    trials = tmp_path / "study" / "trials"
    kept = sorted(s.path for s in all_stored(trials))
    half = trials / "0000" / "checkpoints" / ".samples-000000000016.7"
    half.mkdir()
    (half / "weights").write_bytes(b"x" * 2**20)
    command = ["gc", str(tmp_path / "study")]
    for dry in (["--dry-run"], []):
        assert half.exists()
        result = CliRunner().invoke(app, [*command, *dry])
        assert result.exit_code == 0
        assert "interrupted" in result.output
        assert "1.0 MiB" in result.output
    assert not half.exists()
    assert sorted(s.path for s in all_stored(trials)) == kept


def test_a_checkpoint_that_cannot_be_removed_is_not_counted_as_gone(tmp_path, monkeypatch):
    """Its name has changed by then; what is left of it goes when the disk lets it."""
    run(tmp_path / "study", make_sweep(8))
    trials = tmp_path / "study" / "trials"
    half = trials / "0000" / "checkpoints" / ".samples-000000000016.7"
    half.mkdir()
    (half / "weights").write_bytes(b"x")

    unlink = os.unlink

    def refuse(path, **where):
        if "weights" in str(path):
            raise OSError(errno.EBUSY, "busy", str(path))
        unlink(path, **where)

    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", refuse)
        result = CliRunner().invoke(app, ["gc", str(tmp_path / "study")])
        assert (result.exit_code, result.stderr) == (1, f"error: {half}: busy (weights)\n")
    assert (half / "weights").exists()
    assert CliRunner().invoke(app, ["gc", str(tmp_path / "study")]).exit_code == 0
    assert not half.exists()
    remove(Stored(trial=0, path=half, size=1, leftover=True))  # somebody was quicker
