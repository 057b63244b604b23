"""Optuna's study holds what the log says, trial by trial, whatever its storage did meanwhile."""

from __future__ import annotations

import shutil
from contextlib import closing, contextmanager
from dataclasses import replace

import optuna
import pytest
from small_world import FakeJobs, Killed, make_sweep
from test_recovery import TOLD, outcome

from mir.errors import ClusterError, ConfigError
from orchestrator.control import Request, post
from orchestrator.controller import Controller
from orchestrator.earlier import transfers
from orchestrator.eventlog import LOG_NAME, decode, encode, read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.journal import Journal
from orchestrator.mend import rebuild, repair_log
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import BudgetSpec
from sweeps.study import Study, Trial

Storage = optuna.storages._cached_storage._CachedStorage
RATE, BATCH = "learning_rate", "global_batch"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("orchestrator.trackers.background.BACKOFF_S", (0.01,))
    monkeypatch.setattr("orchestrator.controller.POLL_S", 0.0)


def sweep(trials=4, space=None, workers=1, name="small", **study):
    """A recipe with a real study; space: of `optim`, beside the learning rate."""
    spec = make_sweep(trials)
    rate = spec.space["optim"]
    return spec.model_copy(
        update={
            "name": name,
            "space": {"optim": {**rate, **(space or {})}},
            "study": spec.study.model_copy(update=study),
            "resources": spec.resources.model_copy(update={"workers": workers}),
        }
    )


def run(spec, folder, jobs=None):
    executor = InlineExecutor(jobs or FakeJobs(), nodes=((9.0, 0.0),))
    return Controller(spec, folder, executor, MemoryTracker()).run()


def check(spec, folder, view):
    """One trial a number, one end a trial, the same in Optuna; running again changes nothing."""
    assert sorted(view.trials) == list(range(len(view.trials)))
    ended = [r.data["trial"] for r in read_records(folder / LOG_NAME) if r.kind == "ended"]
    assert sorted(ended) == sorted(view.trials)
    told = {number: TOLD[trial.state] for number, trial in view.trials.items()}
    assert Study(spec, folder).states() == told
    assert outcome(run(spec, folder)) == outcome(view)
    assert rebuild(folder, MemoryTracker()).trials == load_view(folder).trials
    assert Study(view.spec, folder).states() == told


@contextmanager
def one_fault(method, *, after, lost=False):
    """Optuna's storage fails at one call of a method. lost: it does as told, the answer is lost."""
    act, calls = getattr(Storage, method), []

    def failing(self, *args, **kwargs):
        calls.append(method)
        fails = len(calls) == after + 1
        if lost or not fails:
            answer = act(self, *args, **kwargs)
        if fails:
            raise optuna.exceptions.StorageInternalError("the server closed the connection")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, method, failing)
        yield
    assert len(calls) > after


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("method", ["create_new_trial", "get_trial", "set_trial_param"])
def test_a_storage_that_fails_inside_an_ask_leaves_no_trial_behind(method, lost, tmp_path):
    spec = sweep(space={"warmup_ratio": {"low": 0.0, "high": 0.5}})
    # The second parameter of trial 2; of other methods any call will do.
    with one_fault(method, after=5 if method == "set_trial_param" else 3, lost=lost):
        view = run(spec, tmp_path / "study")
    assert len(view.trials) == 4
    check(spec, tmp_path / "study", view)


def test_a_trial_that_the_log_never_had_is_not_run_beyond_the_budget(tmp_path):
    spec, jobs = sweep(), FakeJobs()
    view = run(spec, tmp_path / "study", jobs)
    Study(spec, tmp_path / "study")._study.ask()  # its controller died before the log had it
    assert outcome(run(spec, tmp_path / "study", jobs)) == outcome(view)
    assert len(jobs.ran) == 4
    larger = run(spec.model_copy(update={"budget": BudgetSpec(trials=6)}), tmp_path / "study", jobs)
    check(larger.spec, tmp_path / "study", larger)


def test_another_folders_study_in_a_shared_storage_is_not_offered_up_unawares(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    view = run(sweep(1, storage=url), tmp_path / "one")
    words = r"trial 0 is COMPLETE in Optuna and not in the event log\. If the study 'small' in .*"
    words += r"shared\.db is another folder's, give this one a study\.storage of its own or "
    words += r"another name: `mirsweep rebuild` deletes it there and makes it again from this log"
    with pytest.raises(ClusterError, match=words):
        run(sweep(1, storage=url), tmp_path / "two")
    run(sweep(1, storage=f"sqlite:///{tmp_path / 'own.db'}"), tmp_path / "two")
    check(view.spec, tmp_path / "one", view)


BATCHES = {BATCH: {"low": 8, "high": 16, "integer": True}}
REFUSED = [{BATCH: 12, RATE: 1e-2}, {BATCH: 16, RATE: 2e-2}]


def check_refused(view, number):
    states = [trial.state for _, trial in sorted(view.trials.items())]
    assert states.pop(number) is TrialState.FAILED
    assert TrialState.FAILED not in states
    assert "12" in view.trials[number].reason


def test_a_start_point_that_is_no_job_fails_under_its_own_number(tmp_path):
    spec = sweep(3, BATCHES, workers=8, start=tuple(REFUSED))
    view = run(spec, tmp_path / "study")
    check_refused(view, 1)
    assert view.trials[2].params[RATE] == 2e-2
    check(spec, tmp_path / "study", view)


def test_a_controller_that_dies_between_the_words_about_a_refused_point_is_understood(tmp_path):
    spec, folder = sweep(3, BATCHES, workers=8, start=tuple(REFUSED)), tmp_path / "study"
    ended = Journal.ended

    def dying(self, trial, state, *args, **kwargs):
        if state is TrialState.FAILED:
            raise Killed
        ended(self, trial, state, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Journal, "ended", dying)
        run(spec, folder)
    jobs = FakeJobs()
    view = run(spec, folder, jobs)
    assert [view.trials[n].state.value for n in range(3)] == ["complete", "failed", "complete"]
    assert sorted(jobs.ran) == [2]
    check(spec, folder, view)


def test_an_enqueued_point_that_is_no_job_fails_under_its_own_number(tmp_path):
    spec = sweep(1, BATCHES, workers=8)
    folder = tmp_path / "study"
    run(spec, folder)
    for point in REFUSED:
        post(folder, Request(verb="enqueue", point=point))
    view = run(spec, folder)
    check_refused(view, 1)
    assert view.trials[2].params[RATE] == 2e-2
    check(spec, folder, view)


def seeded(tmp_path, **proxy):
    """A recipe that begins where an earlier study was best, and that study's folder."""
    run(sweep(2, name="proxy", start=({RATE: 0.033},), **proxy), tmp_path / "earlier")
    return sweep(warm_start=(str(tmp_path / "earlier"),)), tmp_path / "earlier"


def test_a_study_is_made_again_without_those_it_was_seeded_from(tmp_path):
    spec, earlier = seeded(tmp_path)
    view = run(spec, tmp_path / "study")
    assert view.trials[1].params[RATE] == pytest.approx(0.033)
    shutil.rmtree(earlier)
    check(spec, tmp_path / "study", view)


def test_a_better_trial_of_an_earlier_study_changes_no_start_points(tmp_path):
    spec, earlier = seeded(tmp_path)
    view = run(spec.model_copy(update={"budget": BudgetSpec(trials=1)}), tmp_path / "study")
    post(earlier, Request(verb="enqueue", point={RATE: 0.012}))
    better = run(load_view(earlier).spec, earlier)
    assert better.trials[2].objective < better.trials[1].objective
    rebuild(tmp_path / "study", None)
    view = run(spec, tmp_path / "study")
    assert view.trials[1].params[RATE] == pytest.approx(0.033)
    check(spec, tmp_path / "study", view)


def test_a_study_without_a_database_seeds_another(tmp_path):
    spec, earlier = seeded(tmp_path, storage="memory:")
    assert not (earlier / "study.db").exists()
    view = run(spec, tmp_path / "study")
    assert view.trials[1].params[RATE] == pytest.approx(0.033)
    assert "earlier: 2 variants in common are too few" in str(transfers(view)[0])


def test_a_study_of_another_objective_seeds_none(tmp_path):
    spec, _ = seeded(tmp_path, objective="gap")
    with pytest.raises(ConfigError, match="earlier: its objective is gap, this study's is mir"):
        run(spec, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_folder_without_a_study_seeds_none(tmp_path):
    with pytest.raises(ConfigError, match=r"study\.warm_start: .*: no study here"):
        run(sweep(warm_start=(str(tmp_path),)), tmp_path / "study")


@pytest.mark.parametrize("storage", [None, "memory:"])
def test_points_in_the_queue_outlast_the_storage(storage, tmp_path):
    start = ({RATE: 0.011}, {RATE: 0.022})
    spec, folder = sweep(5, start=start, storage=storage), tmp_path / "study"

    class Asking(FakeJobs):
        def __call__(self, spec, place):
            if place.folder.name == "0001":
                for verb, point in (("enqueue", {RATE: 0.044}), ("stop", {})):
                    post(folder, Request(verb=verb, point=point))
            return super().__call__(spec, place)

    stopped = run(spec, folder, Asking())
    assert (len(stopped.trials), stopped.ended) == (2, None)
    rebuild(folder, None)
    view = run(spec, folder)
    rates = [trial.params[RATE] for _, trial in sorted(view.trials.items())]
    assert rates[1:4] == pytest.approx([0.011, 0.022, 0.044])
    assert len(rates) == 6


def test_a_log_without_a_queue_goes_on_with_the_start_points_that_it_lacks(tmp_path):
    start = ({RATE: 0.011}, {RATE: 0.022})
    spec, folder = sweep(start=start), tmp_path / "study"
    run(spec.model_copy(update={"budget": BudgetSpec(trials=2)}), folder)
    lines = (folder / LOG_NAME).read_bytes().splitlines(keepends=True)
    old = [record for record in map(decode, lines) if record.kind != "queued"]
    (folder / LOG_NAME).write_bytes(b"".join(encode(replace(r, n=n)) for n, r in enumerate(old)))
    assert not load_view(folder).seeded
    rebuild(folder, None)
    view = run(spec, folder)
    assert [view.trials[n].params[RATE] for n in (1, 2)] == pytest.approx([0.011, 0.022])
    check(spec, folder, view)


def test_a_point_that_was_refused_is_not_drawn_anew(tmp_path):
    spec, folder = sweep(1, BATCHES, workers=2), tmp_path / "study"
    run(spec, folder)
    post(folder, Request(verb="enqueue", point={BATCH: 11, RATE: 1e-2}))
    assert run(spec, folder).trials[1].state is TrialState.FAILED
    tracker = MemoryTracker()
    rebuild(folder, tracker)
    assert tracker.closed
    (trial,) = [t for t in Study(spec, folder)._trials() if t.state.name == "FAIL"]
    assert trial.params == {f"optim.{BATCH}": 11, f"optim.{RATE}": 1e-2}


def test_a_log_that_lost_only_its_queue_still_tries_the_start_points(tmp_path):
    """Points that an `extended` record brings are no sign that the others were ever queued."""
    start = ({RATE: 0.011}, {RATE: 0.022})
    spec, folder = sweep(5, start=start), tmp_path / "study"
    run(spec.model_copy(update={"budget": BudgetSpec(trials=1)}), folder)
    post(folder, Request(verb="enqueue", point={RATE: 0.044}))
    run(spec.model_copy(update={"budget": BudgetSpec(trials=1)}), folder)
    lines = (folder / LOG_NAME).read_bytes().splitlines(keepends=True)
    lost = next(n for n, line in enumerate(lines) if decode(line).kind == "queued")
    (folder / LOG_NAME).write_bytes(b"".join([*lines[:lost], b"#\n", *lines[lost + 1 :]]))
    repair_log(folder)
    rebuild(folder, None)
    view = run(spec, folder)
    rates = [trial.params[RATE] for _, trial in sorted(view.trials.items())]
    assert sorted(rates[1:4]) == pytest.approx([0.011, 0.022, 0.044])
    check(spec, folder, view)


GRID = {"sampler": "grid", "grid_levels": 3}


def test_a_sweep_ends_when_every_point_of_its_grid_is_tried(tmp_path):
    spec, folder = sweep(9, **GRID), tmp_path / "study"
    view = run(spec, folder)
    assert len(view.trials) == 4, "the start and three points"
    assert view.ended is not None
    assert "all 3 points of the grid are tried" in view.note
    check(spec, folder, view)
    post(folder, Request(verb="enqueue", point={RATE: 0.05}))
    more = run(spec, folder)
    assert [trial.state.value for trial in more.trials.values()].count("failed") == 0
    assert more.trials[4].params[RATE] == 0.05
    check(spec, folder, more)


def test_what_a_point_in_the_queue_lacks_is_drawn_when_the_grid_is_tried(tmp_path):
    """It was never tried, on this and every later run, and kept back those behind it."""
    space = {"warmup_ratio": {"low": 0.0, "high": 0.5}}
    spec, folder = sweep(9, space, sampler="grid", grid_levels=2), tmp_path / "study"
    assert "all 4 points of the grid are tried" in run(spec, folder).note
    for point in ({RATE: 0.05}, {RATE: 0.06, "warmup_ratio": 0.1}):
        post(folder, Request(verb="enqueue", point=point))
    more = run(spec, folder)
    assert [more.trials[n].params[RATE] for n in (5, 6)] == pytest.approx([0.05, 0.06])
    assert "all 4 points of the grid are tried" in more.note
    check(spec, folder, more)


def test_a_study_that_failed_for_want_of_grid_points_is_usable_again(tmp_path):
    """As earlier versions left it: FAILED in the log, RUNNING without parameters in Optuna."""
    spec, folder = sweep(4, **GRID), tmp_path / "study"
    run(spec, folder)
    Study(spec, folder)._study.ask()
    with closing(Journal(folder)) as journal:
        journal.asked(Trial(4, {}, spec.base, {}))
        journal.ended(4, TrialState.FAILED, "bad-configuration: all points are taken")
    view = run(spec.model_copy(update={"budget": BudgetSpec(trials=9)}), folder)
    assert len(view.trials) == 5
    assert Study(spec, folder).states()[4] == "FAIL"
    check(view.spec, folder, view)
