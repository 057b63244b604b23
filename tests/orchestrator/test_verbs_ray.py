"""Every verb from other terminals while a real sweep runs, and the exit codes of the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminals import Terminals, end

from orchestrator.control import waiting
from orchestrator.failures import INTERRUPTED
from orchestrator.state import SweepView, TrialState

pytestmark = [pytest.mark.slow, pytest.mark.ray]

HOPELESS = 1e37
"""A learning rate with which weights overflow within a few steps."""


def paused(view: SweepView) -> bool:
    return view.note.startswith("paused") and view.trials[0].state is TrialState.PAUSED


def tries(view: SweepView) -> list[int]:
    """Trials with the learning rate that fails, as far as they have ended."""
    return [
        number
        for number, trial in view.trials.items()
        if trial.params.get("learning_rate") == HOPELESS and trial.state.final
    ]


def look(here: Terminals) -> None:
    """What only looks, while trial 0 trains."""
    told = here.answer("status", "tiny")
    assert told["running"] is True
    assert told["trials"][0]["state"] == "running"
    assert here.answer("show", "tiny", "0")["job"]["optim"]["learning_rate"] == 1e-3
    assert here.run("logs", "tiny", "0", "--json").returncode == 0
    done = here.run("export", "tiny", "model", "--best")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "tiny: no trial of it is complete and feasible" in done.stderr
    assert not Path(here.folder, "model").exists()


def look_longer(here: Terminals) -> None:
    """What only looks and may take its time, while the sweep waits: trial 0 is a short one."""
    (known,) = here.answer("list")
    assert known["running"] is True and known["folder"] == "runs/tiny"
    assert Path(here.folder, here.answer("report", "tiny")["page"]).is_file()
    assert here.answer("gc", "tiny", "--dry-run")["removed"] == []


def steer(here: Terminals) -> None:
    """Pause, add to the budget and the queue meanwhile, go on."""
    assert here.answer("pause", "tiny")["taken"] is True
    before = here.until(paused).trials[0]
    assert before.checkpoint is not None
    look_longer(here)
    assert here.answer("extend", "tiny", "--trials", "1")["taken"] is True
    assert here.answer("enqueue", "tiny", f"learning_rate={HOPELESS}")["taken"] is True
    assert here.answer("status", "tiny")["trials_budget"] == 4
    assert here.answer("resume", "tiny")["taken"] is True
    after = here.until(lambda view: view.trials[0].state is not TrialState.PAUSED).trials[0]
    assert after.samples >= before.samples
    assert after.restarts == 0


def watched(said: str) -> None:
    """Lines of one sweep, from trial 0 training to the last of it."""
    lines = [json.loads(line) for line in said.splitlines()]
    states = [line["trials"][0]["state"] for line in lines]
    assert states[0] == "running" and "paused" in states
    assert [line["trials_budget"] for line in (lines[0], lines[-1])] == [2, 4]


def wrong_usage(here: Terminals) -> None:
    """A line and the documented code for what cannot be done."""
    for code, words in {
        2: ["show tiny 99", "logs tiny 99", "extend tiny", "enqueue tiny nosuch=1", "status tin"],
        1: ["stop tiny", "pause tiny", "resume tiny", "attach tiny --wait 0"],
    }.items():
        for line in words:
            done = here.run(*line.split())
            assert done.returncode == code, (line, done.stdout, done.stderr)
            assert done.stderr.count("\n") == 1, done.stderr


def test_every_verb_works_from_another_terminal_while_the_sweep_runs(tmp_path):
    here = Terminals(tmp_path)
    recipe = here.recipe(samples=400, trials=2)
    running = here.start("run", recipe, "--json")
    here.until(lambda view: bool(view.trials) and bool(view.trials[0].steps))
    look(here)
    watching = here.start("status", "tiny", "--watch", "--json")
    assert watching.stdout is not None
    first = watching.stdout.readline()
    steer(here)
    assert here.answer("stop", "tiny", "--now")["taken"] is True
    said = end(running)
    assert running.returncode == INTERRUPTED, said
    assert "stopped by `mirsweep stop`" in said.splitlines()[-1]
    watched(first + end(watching))
    assert watching.returncode == 0
    wrong_usage(here)

    running = here.start("run", recipe)
    view = here.until(lambda view: bool(tries(view)))
    failed = view.trials[tries(view)[0]]
    assert failed.state is TrialState.FAILED and failed.reason.startswith("diverged")
    assert here.answer("retry", "tiny", "--failed")["taken"] is True
    view = here.until(lambda view: len(tries(view)) == 2)
    assert here.answer("stop", "tiny", "--drain")["taken"] is True
    said = end(running)
    assert running.returncode == INTERRUPTED, said
    assert "drained by `mirsweep stop --drain`" in said
    told = here.answer("status", "tiny")
    assert told["trials_budget"] == 5
    assert {trial["state"] for trial in told["trials"]} <= {"complete", "failed"}
    assert not waiting(tmp_path / "runs" / "tiny")
