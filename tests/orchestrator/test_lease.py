"""One controller a study, also where the file system carries no locks between hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_world import FakeJobs, FakeStudy, make_sweep

from jobs.events import Step
from mir.errors import ClusterError
from orchestrator.control import Request, post
from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.lease import HOLDER_NAME, lease
from orchestrator.trackers.memory import MemoryTracker


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("orchestrator.lease.BEAT_S", 0.02)
    monkeypatch.setattr("orchestrator.lease.STALE_S", 0.3)
    monkeypatch.setattr("orchestrator.lease._LOOK_S", 0.01)


def elsewhere(folder, beat=0):
    holder = {"pid": 7, "host": "far-away", "since": 0.0, "token": "theirs", "beat": beat}
    (folder / HOLDER_NAME).write_text(json.dumps(holder))


def test_a_second_one_is_refused_and_told_who_holds_it(tmp_path):
    with lease(tmp_path) as held:
        held.check()
        with (
            pytest.raises(ClusterError, match="another controller runs this study"),
            lease(tmp_path),
        ):
            pass
    with lease(tmp_path):
        pass
    assert not (tmp_path / HOLDER_NAME).exists()


def test_a_second_one_may_wait_for_the_first_to_leave(tmp_path):
    first = lease(tmp_path)
    first.__enter__()
    leaving = threading.Timer(0.2, first.__exit__, (None, None, None))
    leaving.start()
    with lease(tmp_path, wait_s=20.0) as held:
        held.check()
    leaving.join()


def test_a_dead_holder_on_this_host_is_taken_over_at_once(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from orchestrator.lease import lease
with lease(Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert (tmp_path / HOLDER_NAME).exists()
    with lease(tmp_path):
        pass


def test_a_holder_on_another_host_is_believed_as_long_as_its_heart_beats(tmp_path):
    over = threading.Event()

    def beat():
        count = 0
        while not over.wait(0.01):
            count += 1
            elsewhere(tmp_path, count)

    elsewhere(tmp_path)
    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(ClusterError, match="process 7 on far-away"), lease(tmp_path):
            pass
    finally:
        over.set()
        heart.join()
    with lease(tmp_path) as held:  # its heart stands still now
        held.check()


def test_who_stood_still_and_was_taken_over_must_stop(tmp_path):
    with lease(tmp_path) as held:
        elsewhere(tmp_path)
        deadline = time.monotonic() + 20.0
        with pytest.raises(ClusterError, match=r"taken this study over .*far-away"):
            while time.monotonic() < deadline:
                held.check()
                time.sleep(0.01)
    assert json.loads((tmp_path / HOLDER_NAME).read_text())["host"] == "far-away"


@pytest.fixture
def _still(monkeypatch):
    """The heartbeat's thread has not come up again yet."""
    monkeypatch.setattr("orchestrator.lease.BEAT_S", 60.0)


@pytest.mark.usefixtures("_still")
@pytest.mark.parametrize("left", [False, True])
def test_who_wakes_up_looks_at_once_who_holds_the_study(tmp_path, monkeypatch, left):
    with lease(tmp_path) as held:
        monkeypatch.setattr("orchestrator.lease.STALE_S", 600.0)
        elsewhere(tmp_path)
        held.check()  # nobody can have taken it over so soon, so it does not look
        if left:
            (tmp_path / HOLDER_NAME).unlink()
        monkeypatch.setattr("orchestrator.lease.STALE_S", 0.0)
        with pytest.raises(ClusterError, match="taken this study over"):
            held.check()


@pytest.mark.usefixtures("_still")
def test_who_stood_still_in_its_own_right_goes_on(tmp_path, monkeypatch):
    with lease(tmp_path) as held:
        monkeypatch.setattr("orchestrator.lease.STALE_S", 0.0)
        held.check()


@pytest.mark.parametrize("left", [False, True])
def test_who_stood_still_in_the_middle_of_a_beat_takes_nothing_back(tmp_path, monkeypatch, left):
    write, woken = Path.write_text, threading.Event()

    def asleep(path, text):
        write(path, text)
        if path.name != HOLDER_NAME and not woken.is_set():
            elsewhere(tmp_path)
            if left:
                (tmp_path / HOLDER_NAME).unlink()
            time.sleep(0.4)
            woken.set()

    with lease(tmp_path) as held:
        monkeypatch.setattr(Path, "write_text", asleep)
        assert woken.wait(20.0)
        held._thread.join(20.0)
        with pytest.raises(ClusterError, match="taken this study over"):
            held.check()
    found = {path.name: path.read_text() for path in tmp_path.glob("controller.[!l]*")}
    assert [json.loads(text)["token"] for text in found.values()] == ([] if left else ["theirs"])


class Asleep(FakeJobs):
    """A job during which its controller's host sleeps, and another controller takes over."""

    study, draining = None, False

    def _events(self, number, spec, place):
        if self.draining:
            post(self.study, Request(verb="stop"))
        for event in super()._events(number, spec, place):
            if isinstance(event, Step) and (place.stop_requested() or not self.draining):
                elsewhere(self.study)
                self.known = [*read_records(self.study / "events.jsonl")]
                time.sleep(0.4)
            yield event


@pytest.mark.usefixtures("_still")
@pytest.mark.parametrize("draining", [False, True])
def test_a_controller_that_was_taken_over_writes_no_more(tmp_path, monkeypatch, draining):
    monkeypatch.setattr("orchestrator.controller.POLL_S", 0.0)
    jobs, spec = Asleep(), make_sweep(2)
    jobs.study, jobs.draining = tmp_path / "study", draining
    controller = Controller(
        spec, jobs.study, InlineExecutor(jobs), MemoryTracker(),
        open_study=lambda *_: FakeStudy(spec),
    )  # fmt: skip
    with pytest.raises(ClusterError, match="taken this study over"):
        controller.run()
    assert [*read_records(jobs.study / "events.jsonl")] == jobs.known
