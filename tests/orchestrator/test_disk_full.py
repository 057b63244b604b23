"""A disk that is really full: a small file system, and what a sweep leaves on it."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from small_world import FakeJobs, make_sweep

from mir.errors import ClusterError
from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import StopSpec
from sweeps.study import Study

TRIALS = 5
BLOCK = 4096
TIMEOUT_S = 60.0


def wait_until(true):
    """Wait for this, not for ever."""
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def disk(place: Path, mib: int):
    """A file system of its own."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount, and not in every container")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    """Take all space but so many bytes."""
    ballast = place / "ballast"
    blocks = max(0, shutil.disk_usage(place).free - leave) // BLOCK
    with ballast.open("wb") as file:
        for _ in range(blocks):
            file.write(b"x" * BLOCK)
    return ballast


def sweep(folder, fuller=None):
    """A whole sweep with Optuna's study on the disk. fuller: called as each trial begins."""
    spec = make_sweep(TRIALS, stop=StopSpec(rule="none", infeasible_patience=0))

    class Jobs(FakeJobs):
        def __call__(self, spec, place):
            if fuller is not None:
                fuller(int(place.folder.name))
            return super().__call__(spec, place)

    executor = InlineExecutor(Jobs(), nodes=((1.0, 0.0),))
    return Controller(spec, folder, executor, MemoryTracker(), open_study=Study).run()


def check_whole(folder):
    """Everything ended once, and Optuna knows the same."""
    view = load_view(folder)
    assert [trial.state for trial in view.trials.values()] == [TrialState.COMPLETE] * TRIALS
    endings = Counter(r.data["trial"] for r in read_records(folder / "events.jsonl")
                      if r.kind == "ended")  # fmt: skip
    assert endings == Counter(range(TRIALS))
    assert set(Study(view.spec, folder).states().values()) == {"COMPLETE"}
    with closing(sqlite3.connect(folder / "study.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("leave", [0, 1, 3, 6, 9, 15])
def test_a_full_disk_is_said_in_one_line_and_space_lets_the_sweep_go_on(tmp_path, leave, caplog):
    """The log ends the sweep, to be run again; Optuna's database alone is waited for."""
    with disk(tmp_path / "disk", 8) as place:
        study, error = place / "study", []

        def fuller(number):
            if number == 1 and not (place / "ballast").exists():
                fill(place, leave * BLOCK)

        def run(fuller=None):
            try:
                sweep(study, fuller)
            except ClusterError as raised:
                error.append(str(raised))

        thread = threading.Thread(target=run, args=(fuller,), daemon=True)
        thread.start()
        wait_until(lambda: not thread.is_alive() or "trying again" in caplog.text)
        before = load_view(study).trials[0]
        assert before.state is TrialState.COMPLETE
        if thread.is_alive():
            assert "disk is full" in caplog.text
            (place / "ballast").unlink()
            thread.join(TIMEOUT_S)
        else:
            run()  # still full: nothing gets worse
            assert error
            (place / "ballast").unlink(missing_ok=True)
        assert not thread.is_alive()
        for line in error:  # of the log, which may have met the full disk right after the database
            assert re.search(r"[Ff]ree some space.*same command", line), error
            assert "\n" not in line
        if error:
            sweep(study)
        check_whole(study)
        assert load_view(study).trials[0] == before
