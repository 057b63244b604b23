"""Who is best is judged by all that is known, in whatever order the trials ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from itertools import permutations
from pathlib import Path

import pytest
from small_world import EVERY, SAMPLES, FakeStudy, make_sweep, save, score
from typer.testing import CliRunner

from jobs.events import Event, Finished, Started
from jobs.place import Place
from jobs.spec import JobSpec
from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.correlate.choose import candidates, choose
from orchestrator.earlier import earlier
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.follow import Follower
from orchestrator.front import pareto
from orchestrator.hindsight import in_hindsight
from orchestrator.mend import rebuild
from orchestrator.report.page import page
from orchestrator.retention import Stored, removals
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.views.best import write_best
from orchestrator.views.plain import news
from orchestrator.views.standing import best_trial, ranked
from orchestrator.views.stream import changes
from orchestrator.views.summary import headline
from sweeps.spec import GuardSpec, RetentionSpec, StopSpec

TRAP, BETTER, BEST, FAR = 1e-4, 1e-3, 1e-2, 3e-2
"""Rates by what comes of them; the trap has the lowest MIR and thrice the best loss."""
ENDS = {TRAP: (1.0, 6.0), BETTER: (2.5, 2.2), BEST: (2.0, 2.0), FAR: (1.9, 3.0)}
REASON = "validation loss 6.00 is more than 25 % above the best feasible one at 64 samples, by 3.50"
runner = CliRunner()


def jobs(spec: JobSpec, place: Place) -> Iterator[Event]:
    mir, loss = ENDS[spec.optim.learning_rate]
    yield Started(ranks=1, device="cpu", trainable={"projector": 1})
    yield score(0, 4.0, loss=7.0)
    for samples in range(EVERY, SAMPLES + 1, EVERY):
        yield score(samples, mir, loss=loss)
    yield save(SAMPLES, place.folder / "checkpoint.json")
    yield Finished(samples=SAMPLES, seconds=1.0)


def sweep(near=0.25, **study):
    constraints = {"loss-below-start": None} | ({"loss-near-best": near} if near else {})
    spec = make_sweep(len(ENDS), stop=StopSpec(rule="none", infeasible_patience=0))
    changed = spec.study.model_copy(update={"guard": GuardSpec(constraints=constraints), **study})
    return spec.model_copy(update={"study": changed})


def run(folder, spec=None, rates=tuple(ENDS), views=None, slots=1):
    """A study of these rates in this order; its trials end in it where there is one slot."""
    spec = spec or sweep()
    see = None if views is None else views.append
    study = FakeStudy(spec, rates=list(rates))
    executor = InlineExecutor(jobs, slots=slots)
    Controller(
        spec, folder, executor, MemoryTracker(), see, open_study=lambda spec, folder: study
    ).run()
    return study


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("orchestrator.controller.POLL_S", 0.0)
    monkeypatch.setattr("orchestrator.screen.SHOW_S", 0.0)
    monkeypatch.setattr("orchestrator.screen.SHOW_SHARE", 1e9)


@pytest.fixture
def folder(tmp_path):
    run(tmp_path / "study")
    return tmp_path / "study"


def rate_of(trial):
    return trial.params["learning_rate"]


@pytest.mark.parametrize("slots", [1, 2])
def test_the_best_is_the_same_in_every_order(tmp_path, slots):
    for order in permutations(ENDS):
        folder = tmp_path / str(order)
        run(folder, rates=order, slots=slots)
        view = load_view(folder)
        found = [(rate_of(trial), trial.feasible) for trial in ranked(view)]
        assert rate_of(best_trial(view)) == BEST, order
        assert found == [(BEST, True), (BETTER, True), (TRAP, False), (FAR, False)], order


def test_whoever_looks_sees_the_same_standing(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.shelf.IN_HAND", 1)
    views = []
    run(tmp_path / "again", views=views)
    view = load_view(tmp_path / "again")
    assert views[-1] == Follower(tmp_path / "again").look() == in_hindsight(view) == view
    assert [view.trials[n].counted[-1] for n in sorted(view.trials)] == [False, True, True, False]
    seen = [(best.number, view.trials[0].feasible) for view in views if (best := best_trial(view))]
    assert list(dict.fromkeys(seen)) == [(0, True), (1, False), (2, False)]


def test_what_rests_on_the_best_has_the_right_one(folder):
    view = load_view(folder)
    assert "trial 2 is best" in headline(view)
    assert f"learning_rate: {BEST}" in write_best(view, folder).read_text()
    assert [trial.number for trial in earlier(str(folder), "mir")] == [2, 1]
    also = view.spec.study.model_copy(update={"also": ("validation-loss",)})
    assert pareto(replace(view, spec=view.spec.model_copy(update={"study": also}))) == [2]
    for number in range(4):
        (folder / f"trials/{number:04d}/checkpoints/samples-{SAMPLES}").mkdir(parents=True)
    able, _ = candidates(view, folder)
    assert [one.trial.number for one in choose(able, 2, None, "study")] == [1, 2]
    stored = [Stored(trial=n, path=folder / f"{n}" / "samples-64", size=1) for n in range(4)]
    kept = view.spec.model_copy(update={"retention": RetentionSpec(keep_best=2)})
    assert [r.stored.trial for r in removals(replace(view, spec=kept), stored)] == [0, 3]


def test_the_best_is_exported(folder, tmp_path, monkeypatch):
    from jobs.export import run as export_run

    asked = []

    def fake(checkpoint, folder):
        asked.append(checkpoint.parent.parent.name)
        return export_run.Exported(
            folder=folder, form="llava", why="", moca_layers=(), samples=8, difference=0.0
        )

    monkeypatch.setattr(export_run, "export_checkpoint", fake)
    monkeypatch.setattr("jobs.downstream.start.find_checkpoint", Path)
    done = runner.invoke(app, ["export", "--best", str(folder), str(tmp_path / "out")])
    assert (done.exit_code, asked) == (0, ["0002"]), done.output


def test_a_running_sweep_keeps_the_checkpoint_of_its_best(tmp_path):
    spec = sweep().model_copy(update={"retention": RetentionSpec(keep_best=1)})
    for number in range(4):
        (tmp_path / f"s/trials/{number:04d}/checkpoints/samples-64").mkdir(parents=True)
    run(tmp_path / "s", spec)
    left = [path.parts[-3] for path in (tmp_path / "s").glob("trials/*/checkpoints/samples-64")]
    assert left == ["0002"]


def test_the_reason_is_shown_wherever_there_are_reasons(folder):
    def said(*command):
        return runner.invoke(app, [*command], env={"COLUMNS": "200"}).stdout

    facts = json.loads(said("status", str(folder), "--json"))
    assert facts["best_trial"] == 2
    assert (facts["trials"][0]["feasible"], facts["trials"][0]["violation"]) == (False, REASON)
    assert f"does not count: {REASON}" in said("show", str(folder), "0")
    assert "does not count: validation loss 6.00 is more" in said("status", str(folder))
    assert f"does not count: {REASON}" in unescape(page(load_view(folder)))


def test_those_who_follow_hear_that_a_trial_no_longer_counts(tmp_path):
    views = []
    run(tmp_path / "s", views=views)
    pairs = list(zip([None, *views[:-1]], views, strict=True))
    lines = [line for pair in pairs for line in news(*pair)]
    assert [line for line in lines if "no longer" in line] == [
        # Against the loss of trial 1, the best at that moment.
        f"trial 0 no longer counts: {REASON.replace('3.50', '3.25')}"
    ]
    told = [one for pair in pairs for one in changes(*pair, tmp_path) if one.get("trial") == 0]
    assert [one["feasible"] for one in told if one["state"] == "complete"] == [True, False]


def test_optuna_made_again_is_told_what_it_was_told(tmp_path):
    first, second = run(tmp_path / "s"), FakeStudy(sweep())
    rebuild(tmp_path / "s", None, lambda spec, folder: second)
    assert second.reports == first.reports
    assert second.told == first.told


def test_without_the_constraint_the_view_stays_as_it_is(tmp_path):
    run(tmp_path / "s", sweep(near=None))
    view = load_view(tmp_path / "s")
    assert in_hindsight(view) is view
    assert best_trial(view).number == 0
