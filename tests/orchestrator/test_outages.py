"""What fails around a sweep: Optuna's storage, the tracking store, the disk. Training does not."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from small_world import RATE, FakeJobs, FakeStudy, make_sweep
from tracking_server import Paced, Sweep, sweep_of

from jobs.events import Stopped
from mir.errors import ClusterError
from orchestrator.clerk import Clerk
from orchestrator.control import Request, post
from orchestrator.controller import Controller
from orchestrator.desk import Desk
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.journal import Journal
from orchestrator.state import TrialState
from orchestrator.steering import enlarge
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.trackers.mlflow_tracker import MlflowTracker
from sweeps.samplers import ExhaustedError
from sweeps.study import Study

SPEC = make_sweep(6)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("orchestrator.trackers.background.BACKOFF_S", (0.01,))
    monkeypatch.setattr("orchestrator.controller.FLUSH_S", 20.0)


class Away(FakeStudy):
    """A storage that refuses everything from its n-th use on, so many times."""

    begins, refusals = 25, 40
    uses = 0

    def _use(self):
        self.uses += 1
        if self.begins <= self.uses < self.begins + self.refusals:
            raise ClusterError("study storage sqlite:///study.db: database is locked")

    def ask(self, *asked):
        self._use()
        return super().ask(*asked)

    def report(self, *told):
        self._use()
        super().report(*told)

    def _tell(self, *told):
        self._use()
        super()._tell(*told)


def run(folder, study, **options):
    executor = InlineExecutor(FakeJobs(), slots=2, nodes=((2.0, 0.0),))
    return Controller(
        SPEC, folder, executor, MemoryTracker(), open_study=lambda *_: study, **options
    ).run()


def test_a_locked_study_holds_up_no_training_and_hears_everything_later(tmp_path, caplog):
    study = Away(SPEC)
    view = run(tmp_path / "study", study)
    assert study.uses > study.begins + study.refusals
    assert "training goes on, trying again" in caplog.text
    assert len(view.trials) == 6
    told = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED"}
    assert study.states() == {n: told[trial.state] for n, trial in view.trials.items()}
    for number, trial in view.trials.items():
        counting = {s.samples for s, ok in zip(trial.scores, trial.counted, strict=True) if ok}
        assert set(study.reports[number]) == counting


def test_a_storage_that_stays_away_leaves_it_to_the_next_controller(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("orchestrator.controller.FLUSH_S", 0.1)
    study = Away(SPEC)
    study.begins = 10**9
    ask = study.ask

    def last(*asked):
        trial = ask(*asked)
        if trial.number == 5:
            study.begins, study.refusals = 0, 10**9
        return trial

    study.ask = last
    view = run(tmp_path / "study", study)
    assert "does not answer" in caplog.text
    assert all(trial.state.final for trial in view.trials.values())
    assert set(study.told) < set(range(6))
    study.refusals = 0
    again = run(tmp_path / "study", study)
    assert again.trials == view.trials
    assert set(study.told) == set(range(6))


def test_a_point_enqueued_while_the_last_answer_was_on_its_way_is_tried(tmp_path):
    release, point = threading.Event(), {RATE: 0.02}

    class Tried(FakeStudy):
        def ask(self, number, given):
            release.wait(20.0)
            if not given:
                raise ExhaustedError("all points of the grid are tried")
            return super().ask(number, given)

    with closing(Journal(tmp_path)) as journal:
        journal.session(SPEC)
        desk = Desk(
            spec=SPEC, folder=tmp_path, journal=journal, study=Tried(SPEC), tracker=MemoryTracker(),
            executor=InlineExecutor(FakeJobs()), patience_s=0.01,
        )  # fmt: skip
        assert desk.ask() is None
        enlarge(desk, Request(verb="extend", trials=1), "r", [point])
        release.set()
        tried = None
        while tried is None and desk.left():
            tried = desk.ask()
        desk.clerk.close()
        desk.keeper.close()
    assert tried is not None and tried.raw == point


def test_nobody_waits_longer_for_a_slow_storage_than_was_said():
    release = threading.Event()

    class Slow(FakeStudy):
        def ask(self, *asked):
            release.wait(20.0)
            return super().ask(*asked)

    clerk = Clerk(Slow(SPEC), patience_s=0.01)
    begin = time.monotonic()
    assert clerk.ask(0, {}) is None
    clerk.report(0, 16, 1.0)
    assert time.monotonic() - begin < 10.0
    release.set()
    while (trial := clerk.ask(0, {})) is None:
        assert time.monotonic() - begin < 20.0
    assert trial.number == 0
    assert clerk.flush(20.0)
    clerk.close()


class StoppedJobs(FakeJobs):
    """Jobs that train on until something is stuck, and release it when they have stopped."""

    def __init__(self, order, release, *, waits):
        super().__init__()
        self.order, self.release, self.waits = order, release, waits

    def _events(self, number, spec, place):
        for event in super()._events(number, spec, place):
            while getattr(event, "samples", 0) > 16 and self.waits and "stuck" not in self.order:
                time.sleep(0.001)
            if isinstance(event, Stopped):
                self.order.append("stopped")
                self.release.set()
            yield event


@pytest.mark.parametrize(("stuck", "patience_s"), [("report", 60.0), ("ask", 0.01)])
def test_a_stop_is_carried_out_while_the_storage_is_stuck(stuck, patience_s, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.controller.POLL_S", 0.0)
    folder, order, release = tmp_path / "study", [], threading.Event()

    class Stuck(FakeStudy):
        def report(self, *told):
            self._hang("report")
            super().report(*told)

        def ask(self, number, given):
            if number > 0:
                self._hang("ask")
            return super().ask(number, given)

        def _hang(self, what):
            if what == stuck and "stuck" not in order:
                order.append("stuck")
                post(folder, Request(verb="stop"))
                release.wait(20.0)
                order.append("answers")

    jobs = StoppedJobs(order, release, waits=stuck == "ask")
    executor = InlineExecutor(jobs, slots=2, nodes=((2.0, 0.0),))
    spec = make_sweep(1 if stuck == "report" else 2)
    study = Stuck(spec)
    view = Controller(
        spec, folder, executor, MemoryTracker(), open_study=lambda *_: study, patience_s=patience_s
    ).run()
    assert order == ["stuck", "stopped", "answers"]
    assert (view.ended, view.trials[0].state) == (None, TrialState.PAUSED)


@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")  # MLflow's SQLAlchemy
def test_a_stop_is_carried_out_while_mlflow_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.controller.POLL_S", 0.0)
    folder, order, release = tmp_path / "study", [], threading.Event()

    class Hanging(MlflowTracker):
        def _log_points(self, trial, mine):
            if "stuck" not in order:
                order.append("stuck")
                post(folder, Request(verb="stop"))
                release.wait(20.0)
                order.append("answers")
            super()._log_points(trial, mine)

    spec = make_sweep(1)
    jobs = StoppedJobs(order, release, waits=True)
    view = Controller(
        spec, folder, InlineExecutor(jobs), Hanging(), open_study=lambda *_: FakeStudy(spec)
    ).run()
    assert order == ["stuck", "stopped", "answers"]
    assert (view.ended, view.trials[0].state) == (None, TrialState.PAUSED)
    kept = MlflowTracker()
    kept.open_sweep(spec, folder)
    run = kept._client.get_run(kept._children[0])
    kept.close()
    assert (run.info.status, run.data.tags["mirsweep.state"]) == ("SCHEDULED", "paused")


def test_a_study_database_that_is_really_locked_holds_up_no_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("sweeps.storage.LOCK_TIMEOUT_S", 0.05)
    folder = tmp_path / "study"
    sweep = Sweep(
        sweep_of(6, None), folder, Paced(0.01), tracker=MemoryTracker(), slots=2, patience_s=0.05
    )
    sweep.until(1)
    with closing(sqlite3.connect(folder / "study.db")) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        training = [*sweep.when(lambda view: view.trials).trials]
        sweep.when(lambda view: all(view.trials[number].state.final for number in training))
        assert "database is locked" in caplog.text
        lock.rollback()
    view = sweep.over()
    assert len(view.trials) == 6
    told = Study(view.spec, folder)._trials()
    assert [trial.state.name for trial in told] == ["COMPLETE"] * 6
    assert [trial.value for trial in told] == [view.trials[n].objective for n in range(6)]
    for trial in told:
        counting = {s.samples for s in view.trials[trial.number].scores}
        assert set(trial.intermediate_values) == counting


def test_what_is_no_outage_reaches_the_caller():
    class Broken(FakeStudy):
        def report(self, *told):
            raise RuntimeError("a bug")

    for patience in (0.01, float("inf")):
        clerk = Clerk(Broken(SPEC), patience)
        with pytest.raises(RuntimeError, match="a bug"):
            clerk.report(0, 16, 1.0)
            clerk.flush(20.0)
        clerk.close()


FULL = """
import resource, signal, sys
from pathlib import Path
from small_world import FakeJobs, FakeStudy, make_sweep
from mir.errors import ClusterError
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.trackers.memory import MemoryTracker

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
spec = make_sweep(4)
try:
    Controller(
        spec, Path(sys.argv[1]), InlineExecutor(FakeJobs(), nodes=((1.0, 0.0),)), MemoryTracker(),
        open_study=lambda *_: FakeStudy(spec),
    ).run()
except ClusterError as error:
    print(error)
    sys.exit(3)
"""


def test_a_full_disk_leaves_a_whole_log_and_the_same_command_goes_on(tmp_path):
    """A limit on file sizes stands for the disk: the log is the only file that grows."""
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FULL, str(tmp_path / "study"), "20000"]
    full = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert full.returncode == 3, full.stderr
    assert "Free some space, then run the same command again: nothing is lost" in full.stdout
    before = load_view(tmp_path / "study")
    assert 0 < len(before.trials) < 4
    assert (tmp_path / "study" / "events.jsonl").stat().st_size <= 20_000
    command[-1] = str(10**9)
    subprocess.run(command, env=environment, check=True)
    after = load_view(tmp_path / "study")
    assert all(trial.state.final for trial in after.trials.values())
    assert len(after.trials) == 4
    ended = {n: t for n, t in before.trials.items() if t.state.final}
    assert {n: after.trials[n] for n in ended} == ended


def test_a_heartbeat_that_cannot_be_written_ends_nothing(tmp_path, monkeypatch):
    from orchestrator import lease as module

    monkeypatch.setattr(module, "BEAT_S", 0.01)
    with module.lease(tmp_path) as held:

        def full(beat):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(held, "_write", full)
        time.sleep(0.05)
        held.check()


def test_the_second_ctrl_c_leaves_at_once_and_the_same_command_goes_on(tmp_path):
    study, jobs = FakeStudy(SPEC), FakeJobs()

    def impatient(spec, place):
        for event in jobs(spec, place):
            yield event
            if place.folder.name == "0001" and getattr(event, "samples", 0) == 24:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    def controller(runner):
        executor = InlineExecutor(runner, slots=2, nodes=((2.0, 0.0),))
        return Controller(
            SPEC, tmp_path / "study", executor, MemoryTracker(), open_study=lambda *_: study
        )

    with pytest.raises(KeyboardInterrupt):
        controller(impatient).run()
    assert jobs.running == 0
    view = controller(jobs).run()
    assert all(trial.state.final for trial in view.trials.values())
    assert all(trial.restarts == 0 for trial in view.trials.values())
