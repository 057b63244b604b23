"""The fold: pure, and true to what happened, restarts included."""

from __future__ import annotations

from contextlib import closing
from copy import deepcopy
from math import inf

import pytest
from small_world import SAMPLES, make_sweep, score

from jobs.events import Checkpointed, Failed, Finished, Skipped, Started, Step, Stopped
from mir.errors import DataError
from orchestrator.budget import spent
from orchestrator.eventlog import EventLog, read_records
from orchestrator.fold import fold, fold_all, load_view
from orchestrator.journal import STEP_RECORDS, Journal
from orchestrator.state import TrialState
from sweeps.course import Mark
from sweeps.decision import Decision, Verdict
from sweeps.study import Trial

SPEC = make_sweep()


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(tmp_path, clock):
    journal = Journal(tmp_path, clock)
    journal.session(SPEC)
    journal.asked(Trial(0, {"u": 0.5}, SPEC.base, {"learning_rate": 0.001}))
    journal.launched(0)
    yield journal
    journal.close()


def test_what_was_skipped_counts_anew_where_a_trial_begins_anew(journal):
    """It is told again then; one resumed from a checkpoint has told what came before it."""
    heard = Skipped(source="data.validation", reason="corrupt", count=2)
    for resumed, counted in ((0, 2), (8, 4), (0, 2)):
        started = Started(ranks=1, device="cpu", trainable={}, resumed_samples=resumed)
        journal.heard(0, started)
        journal.heard(0, heard)
        assert journal.view.trials[0].skipped == {"data.validation: corrupt": counted}


def test_what_was_skipped_beyond_a_lost_checkpoint_is_not_counted_twice(journal):
    """It is told before the save that never became whole, and again after the restart."""

    def skipped(samples):
        heard = Skipped(source="web", reason="corrupt", count=1, samples=samples)
        journal.heard(0, heard)
        return journal.view.trials[0].skipped

    assert skipped(8) == {"web: corrupt": 1}
    assert skipped(16) == {"web: corrupt": 2}
    journal.heard(0, Started(ranks=1, device="cpu", trainable={}, resumed_samples=8))
    assert journal.view.trials[0].skipped == {"web: corrupt": 1}
    assert skipped(16) == {"web: corrupt": 2}


def step(samples):
    return Step(samples=samples, loss=2.0, learning_rate=1, grad_norm=1, samples_per_second=9)


def test_a_trial_from_asking_to_its_end(journal, clock):
    trial = journal.view.trials[0]
    assert (trial.state, trial.attempt, trial.started) == (TrialState.RUNNING, 1, 100.0)
    assert trial.params == {"learning_rate": 0.001}
    assert trial.raw == {"u": 0.5}
    journal.scored(0, score(0, 4.0), {"gap": -1.0}, "")
    journal.heard(0, step(8))
    journal.heard(0, Checkpointed(samples=16, path="/c/16"))
    journal.heard(0, Skipped(source="web", reason="corrupt", count=2))
    journal.heard(0, Skipped(source="web", reason="corrupt", count=1))
    journal.scored(0, score(16, 3.0), {"gap": 0.5}, "the gap is negative")
    clock.now = 130.0
    decision = Decision(verdict=Verdict.PRUNE, reason="MIR 3 against 2")
    journal.judged(0, decision, 16)
    journal.ended(0, TrialState.PRUNED, "MIR 3 against 2", event=Stopped(samples=24, reason="x"))
    trial = journal.view.trials[0]
    assert trial.state is TrialState.PRUNED
    assert (trial.verdict, trial.verdict_samples) == (Verdict.PRUNE, 16)
    assert trial.counted == (True, False)
    assert trial.feasible is False
    assert trial.violations == {"gap": 0.5}
    assert trial.violation == "the gap is negative"
    assert (trial.samples, trial.mir, trial.checkpoint) == (24, 3.0, "/c/16")
    assert trial.skipped == {"web: corrupt": 3}
    assert (trial.ended, trial.seconds, trial.launched) == (130.0, 30.0, None)
    assert trial.budget == SAMPLES


def test_a_restart_forgets_what_was_beyond_its_checkpoint(journal):
    for samples in (0, 16, 32):
        journal.scored(0, score(samples, 4.0), {}, "")
    journal.heard(0, step(32))
    journal.requeued(0, TrialState.QUEUED, "lost", event=Failed(kind="worker-lost", reason="x"),
                     counted=True)  # fmt: skip
    journal.launched(0)
    journal.heard(0, Started(ranks=1, device="cpu", trainable={}, resumed_samples=16))
    trial = journal.view.trials[0]
    assert [scored.samples for scored in trial.scores] == [0, 16]
    assert (trial.samples, trial.steps, trial.restarts, trial.attempt) == (16, (), 1, 2)
    journal.scored(0, score(16, 3.9), {}, "")
    assert [s.mir["mir"] for s in journal.view.trials[0].scores] == [4.0, 3.9]


def test_a_lowered_micro_batch_is_remembered_for_its_shape(journal):
    journal.requeued(0, TrialState.QUEUED, "full", lowered=("shape", 2))
    assert journal.view.micro_batches == {"shape": 2}
    job = journal.view.trials[0].job
    assert job.deepspeed.micro_batch == 2
    assert job.optim == SPEC.base.optim


def test_folding_changes_no_earlier_view(journal):
    journal.heard(0, step(8))
    journal.ended(0, TrialState.COMPLETE, "", event=Finished(samples=64, seconds=1), objective=2.0)
    journal.closed("")
    view, before = None, []
    for record in read_records(journal.path):
        view = fold(view, record)
        before.append((view, deepcopy(view)))
    assert all(now == then for now, then in before)
    assert view == journal.view == fold_all(read_records(journal.path))


def test_steps_are_thinned_by_time_and_by_samples(journal, clock):
    for n in range(1, 9):
        clock.now += 0.5
        journal.heard(0, step(8 * n))
    assert [point.samples for point in journal.view.trials[0].steps] == [8, 24, 40, 56]
    long = SPEC.base.model_copy(
        update={"optim": SPEC.base.optim.model_copy(update={"samples": 8 * 10 * STEP_RECORDS})}
    )
    journal.asked(Trial(1, {}, long, {}))
    journal.launched(1)
    for n in range(1, 101):
        clock.now += 60.0
        journal.heard(1, step(8 * n))
    assert len(journal.view.trials[1].steps) == 10


def test_only_the_time_with_a_controller_counts(tmp_path, clock):
    journal = Journal(tmp_path, clock)
    journal.session(SPEC)
    clock.now += 10.0
    journal.note("working")
    journal.close()
    clock.now += 1000.0
    again = Journal(tmp_path, clock)
    assert again.found is not None
    again.session(SPEC)
    clock.now += 5.0
    again.note("again")
    assert again.view.elapsed == 15.0
    assert again.view.opened == 100.0
    again.close()


def test_the_time_in_which_people_hold_the_sweep_does_not_count(tmp_path, clock):
    journal = Journal(tmp_path, clock)
    journal.session(make_sweep(hours=1.0))

    def later(seconds, act, *args):
        clock.now += seconds
        act(*args)
        return journal.view.elapsed

    assert later(10.0, journal.held, "paused") == 10.0
    assert later(9.0, journal.held, "paused") == 10.0
    assert later(1000.0, journal.note, "interrupted") == 10.0
    assert spent(journal.view, clock.now + 1e6) is None
    assert later(1.0, journal.resumed) == 10.0
    assert later(5.0, journal.note, "working") == 15.0
    assert later(2.0, journal.resumed) == 17.0
    assert later(1.0, journal.held, "paused") == 18.0
    clock.now += 1000.0
    journal.note("interrupted")
    journal.close()
    clock.now += 1000.0
    journal = Journal(tmp_path, clock)
    journal.session(make_sweep(hours=1.0))
    assert journal.view.elapsed == 18.0
    assert later(4.0, journal.note, "working") == 22.0
    assert spent(journal.view, clock.now + 3600 - 22.0) is not None
    assert spent(journal.view, clock.now + 3600 - 23.0) is None
    journal.close()


def test_a_snapshot_is_the_receivers_to_keep(journal):
    before = journal.snapshot()
    journal.ended(0, TrialState.FAILED, "x")
    assert before.trials[0].state is TrialState.RUNNING


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(DataError, match="no study here"):
        load_view(tmp_path)
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(DataError, match="is empty"):
        load_view(tmp_path)


def rewritten(tmp_path, change):
    """The log of a study as another version would have written it."""
    with closing(EventLog(tmp_path, lambda: 1.0)) as log:
        spec, job = SPEC.model_dump(mode="json"), SPEC.base.to_json()
        change(spec, job)
        data = {"spec": spec, "pid": 1, "host": "h", "code_version": "x"}
        log.append("session", data)
        log.append("asked", {"trial": 0, "params": {}, "raw": {}, "job": job})


def test_a_log_written_before_a_field_existed_is_read_with_its_default(tmp_path):
    def before(spec, job):
        del spec["stop"]["pause"], spec["resources"]["custom"], job["data"]["group_by_length"]

    rewritten(tmp_path, before)
    view = load_view(tmp_path)
    assert view.spec == SPEC
    assert view.trials[0].job == SPEC.base


def test_a_mark_without_averages_is_read_as_older_versions_wrote_it(journal):
    old = Mark(samples=4, first=None, lowest=inf, newest=(2.0,))
    journal.heard(0, Checkpointed(samples=4, path="/c/4"), old)
    assert journal.view.trials[0].mark == Mark(samples=4, newest=(2.0,))


def test_a_log_of_a_later_version_is_refused_in_one_line(tmp_path):
    rewritten(tmp_path, lambda spec, _job: spec["stop"].update(telepathy=1))
    with pytest.raises(DataError, match=r"another version of mirsweep: stop\.telepathy"):
        load_view(tmp_path)
