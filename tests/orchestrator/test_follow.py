"""Following a study from another process: only what is new is read, and a dead one is noticed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from small_world import FakeJobs, FakeStudy, make_sweep
from typer.testing import CliRunner

import orchestrator.follow as module
from mir.errors import DataError
from orchestrator.cli import app
from orchestrator.control import Request, post
from orchestrator.controller import Controller
from orchestrator.eventlog import LOG_NAME
from orchestrator.executors.inline import InlineExecutor
from orchestrator.failures import INTERRUPTED
from orchestrator.fold import load_view
from orchestrator.follow import Follower, Pulse
from orchestrator.lease import HOLDER_NAME, lease, process_of
from orchestrator.trackers.memory import MemoryTracker

SPEC = make_sweep(3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "STALE_S", 0.3)
    monkeypatch.setattr("orchestrator.commands.attach._LOOK_S", 0.01)


def sweep(folder: Path, jobs=None) -> None:
    Controller(
        SPEC,
        folder,
        InlineExecutor(jobs or FakeJobs()),
        MemoryTracker(),
        open_study=lambda *_: FakeStudy(SPEC),
    ).run()


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> list[bytes]:
    """The log of a whole sweep."""
    folder = tmp_path_factory.mktemp("whole")
    sweep(folder)
    return (folder / LOG_NAME).read_bytes().splitlines(keepends=True)


def holder(folder: Path, **fields) -> None:
    known = {"pid": os.getpid(), "host": socket.gethostname(), "since": 0.0, "token": "t"}
    (folder / HOLDER_NAME).write_text(json.dumps({**known, "beat": 0, **fields}))


def test_what_is_followed_record_by_record_equals_what_is_read_at_once(tmp_path, lines):
    (tmp_path / LOG_NAME).write_bytes(b"")
    follower = Follower(tmp_path)
    with pytest.raises(DataError, match="empty"):
        follower.look()
    with (tmp_path / LOG_NAME).open("ab", buffering=0) as log:
        for line in lines:
            log.write(line[:20])
            before = follower._next
            if before:
                follower.look()
            assert follower._next == before, "half a record is none"
            log.write(line[20:])
            assert follower.look() == load_view(tmp_path)


def test_a_log_that_was_mended_meanwhile_is_read_anew(tmp_path, lines):
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines))
    follower = Follower(tmp_path)
    whole = follower.look()
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines[:5]))
    assert follower.look() == load_view(tmp_path) != whole


def test_views_that_were_given_away_do_not_change(tmp_path, lines):
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines[:3]))
    follower = Follower(tmp_path)
    first = follower.look()
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines))
    assert len(follower.look().trials) == 3
    assert len(first.trials) == 1


def test_a_holder_is_alive_while_its_process_or_its_heart_is(tmp_path):
    pulse = Pulse(tmp_path)
    assert not pulse.alive() and pulse.left
    holder(tmp_path)
    assert pulse.alive() and not pulse.left
    holder(tmp_path, pid=2**22 + 1)
    assert not pulse.alive()
    for beat in range(3):
        holder(tmp_path, host="far-away", beat=beat)
        assert pulse.alive()
    deadline = time.monotonic() + 20.0
    while pulse.alive():
        assert time.monotonic() < deadline, "its heart stands still"
        time.sleep(0.02)


def test_another_process_with_the_number_of_a_dead_holder_is_not_it(tmp_path):
    with lease(tmp_path):
        mine = json.loads((tmp_path / HOLDER_NAME).read_text())
        assert Pulse(tmp_path).alive()
    with subprocess.Popen(["sleep", "60"]) as other:  # has its number, as after a reboot
        holder(tmp_path, **mine | {"pid": other.pid})
        assert process_of(other.pid) is not None
        assert not Pulse(tmp_path).alive()
        other.kill()
        deadline = time.monotonic() + 20.0
        while process_of(other.pid) is not None:
            assert time.monotonic() < deadline, "it has ended, though nobody has asked how"
            time.sleep(0.01)


def test_a_process_of_another_user_that_cannot_be_looked_at_is_believed_by_its_heart(
    tmp_path, monkeypatch
):
    def refused(_pid, _signal):
        raise PermissionError

    with lease(tmp_path):
        mine = json.loads((tmp_path / HOLDER_NAME).read_text())
    monkeypatch.setattr(module, "process_of", lambda _pid: None)  # /proc is mounted with hidepid
    monkeypatch.setattr(module.os, "kill", refused)
    pulse = Pulse(tmp_path)
    for beat in range(3):
        holder(tmp_path, **mine | {"beat": beat})
        assert pulse.alive()
    deadline = time.monotonic() + 20.0
    while pulse.alive():
        assert time.monotonic() < deadline, "its heart stands still"
        time.sleep(0.02)


def test_a_number_alone_is_believed_while_its_heart_beats(tmp_path):
    pulse = Pulse(tmp_path)
    for beat in range(3):
        holder(tmp_path, beat=beat)  # of a version or a system that does not tell when it began
        assert pulse.alive()
    deadline = time.monotonic() + 20.0
    while pulse.alive():
        assert time.monotonic() < deadline, "its heart stands still"
        time.sleep(0.02)


def attach(*words: str):
    return CliRunner().invoke(app, ["attach", *words])


def test_attach_waits_for_a_study_that_is_about_to_begin(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "s"
    folder.mkdir(parents=True)
    (folder / LOG_NAME).touch()
    started = threading.Timer(0.3, sweep, (folder,))
    started.start()
    done = attach(str(folder), "--json")
    started.join()
    assert done.exit_code == 0, done.output
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[-1]["ended"] is True
    assert {line["trial"] for line in told if "trial" in line} == {0, 1, 2}


def test_attach_says_that_nobody_runs_the_study(tmp_path, lines):
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines[:8]))
    done = attach(str(tmp_path), "--wait", "0")
    assert done.exit_code == 1
    assert "no controller runs this study" in done.stderr
    holder(tmp_path, host="far-away")  # and its heart does not beat
    done = attach(str(tmp_path), "--wait", "0")
    assert done.exit_code == 1
    assert "its controller has died" in done.stderr


def test_attach_leaves_as_the_sweep_does(tmp_path):
    class Asking(FakeJobs):
        def __call__(self, spec, place):
            for event in super().__call__(spec, place):
                if place.folder.name == "0001" and not followed.is_set():
                    followed.wait(20.0)
                    post(tmp_path / "s", Request(verb="stop"))
                yield event

    followed = threading.Event()
    thread = threading.Thread(target=sweep, args=(tmp_path / "s", Asking()))
    thread.start()
    deadline = time.monotonic() + 20.0
    while not (tmp_path / "s" / HOLDER_NAME).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    threading.Timer(0.3, followed.set).start()
    done = attach(str(tmp_path / "s"))
    thread.join()
    assert done.exit_code == INTERRUPTED, done.output
    assert "stopped by `mirsweep stop`" in done.stderr
    assert "1 of 3 trials finished" in done.stdout


def logs(*words: str):
    return CliRunner().invoke(app, ["logs", *words])


def test_logs_wait_for_a_trial_that_has_not_begun(tmp_path, lines, monkeypatch):
    monkeypatch.setattr("orchestrator.commands.logs._POLL_S", 0.01)
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines[:3]))
    path = tmp_path / "trials" / "0000" / "rank0.log"

    def begin():
        path.parent.mkdir(parents=True)
        path.write_text("hello\n")
        with (tmp_path / LOG_NAME).open("ab") as log:
            log.write(b"".join(lines[3:]))

    with lease(tmp_path):
        beginning = threading.Timer(0.3, begin)
        beginning.start()
        done = logs(str(tmp_path), "0", "--follow")
        beginning.join()
        assert done.exit_code == 0, done.output
        assert done.stdout == "hello\n"
        assert done.stderr == f"trial 0 waits for its turn; its output will be in {path}\n"


def test_logs_do_not_wait_for_what_will_never_come(tmp_path, lines):
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines[:3]))
    assert "no such log" in logs(str(tmp_path), "0", "--follow").stderr  # nobody runs the study
    with lease(tmp_path):
        assert "no such log" in logs(str(tmp_path), "0", "--rank", "1", "--follow").stderr


def test_run_refuses_a_held_study_before_it_starts_anything(tmp_path, monkeypatch):
    from sweeps.recipe import dump_recipe

    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(dump_recipe(SPEC))
    Path("s").mkdir()
    with lease(Path("s")):
        done = CliRunner().invoke(app, ["run", "r.yaml", "--folder", "s"])
    assert done.exit_code == 1
    assert f"process {os.getpid()}" in done.stderr
    assert "--wait" in done.stderr
