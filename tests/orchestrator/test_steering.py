"""Holds and budgets of a sweep that runs."""

import pytest
from small_world import SAMPLES, FakeJobs, FakeStudy, make_sweep
from steered_sweep import Asked, run, states
from typer.testing import CliRunner

import orchestrator.controller as loop
from orchestrator.cli import app
from orchestrator.control import FOLDER, Request, post, taken, waiting
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import BudgetSpec, StopSpec


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Pretended jobs are quicker than a person: look for requests in every turn of the loop."""
    monkeypatch.setattr(loop, "POLL_S", 0.0)


def test_requests_are_taken_in_the_order_they_were_left(tmp_path):
    verbs = ["pause", "extend", "resume"]
    paths = [post(tmp_path, Request(verb=verb)) for verb in verbs]
    (tmp_path / FOLDER / "torn.json").write_text('{"verb": "st')
    assert [(path, request.verb) for path, request in waiting(tmp_path)] == list(
        zip(paths, verbs, strict=True)
    )
    assert not (tmp_path / FOLDER / "torn.json").exists()
    assert not taken(paths[0], 0.0)
    paths[0].unlink()
    assert taken(paths[0], 0.0)


def test_stop_saves_the_running_trial_and_the_next_run_goes_on(tmp_path):
    view, jobs, study = run(tmp_path / "s", {1: [Request(verb="stop")]})
    assert view.ended is None
    assert view.note.startswith("stopped by `mirsweep stop`")
    assert states(view) == ["complete", "paused"]
    assert not waiting(tmp_path / "s")
    view, again, _ = run(tmp_path / "s", {}, study=study)
    assert states(view) == ["complete"] * 4
    assert jobs.trained[1] + again.trained[1] == SAMPLES, "it went on from its checkpoint"


def test_a_drained_sweep_lets_its_trials_end_and_begins_none(tmp_path):
    view, _, study = run(tmp_path / "s", {1: [Request(verb="drain")]})
    assert view.ended is None
    assert states(view) == ["complete", "complete"]
    assert "drained" in view.note
    assert states(run(tmp_path / "s", {}, study=study)[0]) == ["complete"] * 4


def test_a_paused_sweep_waits_with_its_trials_saved_until_it_is_resumed(tmp_path, monkeypatch):
    seen = []

    def slept(_seconds):
        view = load_view(tmp_path / "s")
        seen.append((view.trials[1].state, view.note))
        post(tmp_path / "s", Request(verb="resume"))

    monkeypatch.setattr(loop.time, "sleep", slept)
    view, jobs, _ = run(tmp_path / "s", {1: [Request(verb="pause")]})
    assert seen[0] == (TrialState.PAUSED, "paused; `mirsweep resume` goes on")
    assert states(view) == ["complete"] * 4
    assert jobs.trained[1] == SAMPLES
    assert view.trials[1].restarts == 0


def test_a_night_on_hold_costs_nothing_of_the_hours(tmp_path, monkeypatch):
    """The clock jumps by a day while the sweep is paused, and again over a restart on hold."""
    now, nights = [0.0], []

    def clock():
        now[0] += 1.0
        return now[0]

    def slept(_seconds):
        now[0] += 86_400.0
        nights.append(now[0])
        post(tmp_path / "s", Request(verb="stop" if len(nights) == 1 else "resume"))

    monkeypatch.setattr(loop.time, "sleep", slept)
    spec = make_sweep(4, stop=StopSpec(rule="none", infeasible_patience=0), hours=1.0)
    study, asks = FakeStudy(spec), {1: [Request(verb="pause")], 2: [Request(verb="pause")]}
    for ends in (False, True):
        view = Controller(
            spec, tmp_path / "s", InlineExecutor(Asked(tmp_path / "s", asks)), MemoryTracker(),
            open_study=lambda *_: study, clock=clock,
        ).run()  # fmt: skip
        assert (view.ended is not None) is ends
    assert len(nights) == 2
    assert states(view) == ["complete"] * 4


def test_a_larger_budget_counts_at_once_and_stays_in_the_log(tmp_path):
    asks = {1: [Request(verb="extend", trials=2), Request(verb="extend", trials=1, hours=5.0)]}
    view, _, _ = run(tmp_path / "s", asks)
    assert states(view) == ["complete"] * 7
    found = load_view(tmp_path / "s").spec.budget
    assert (found.trials, found.hours) == (7, None)


@pytest.mark.parametrize("slots", [1, 2])
def test_what_a_spent_budget_cut_short_goes_on_when_it_has_grown(tmp_path, slots):
    spec = make_sweep(4, stop=StopSpec(rule="none", infeasible_patience=0))
    budget = BudgetSpec(trials=4, samples=2 * SAMPLES + 24 * slots)
    spec = spec.model_copy(update={"budget": budget})
    jobs, study, tracker = FakeJobs(), FakeStudy(spec), MemoryTracker()

    def sitting():
        executor = InlineExecutor(jobs, slots=slots, nodes=((2.0, 0.0),))
        return Controller(
            spec, tmp_path / "s", executor, tracker, open_study=lambda *_: study
        ).run()  # fmt: skip

    for _ in range(2):  # nor is anything lost by running the same command again
        view = sitting()
        assert view.note == f"the budget of {budget.samples} samples is spent"
        assert view.ended is not None
        assert states(view) == ["complete"] * 2 + ["paused"] * slots
        assert view.trials[2].reason == view.note
        assert sorted(study.told) == [0, 1]
        assert tracker.trials[2].state == "paused"
    words = ["extend", str(tmp_path / "s"), "--samples", str(2 * SAMPLES)]
    assert CliRunner().invoke(app, words).exit_code == 0
    view = sitting()
    assert states(view) == ["complete"] * 4
    assert view.spec.budget.samples == budget.samples + 2 * SAMPLES
    assert set(jobs.trained.values()) == {SAMPLES}, "they went on from their checkpoints"
    assert set(study.tellings.values()) == {1}


def test_a_larger_budget_outlasts_its_controller_until_the_recipe_has_another(tmp_path):
    def again(trials, study):
        spec = make_sweep(trials, stop=StopSpec(rule="none", infeasible_patience=0))
        return Controller(
            spec, tmp_path / "s", InlineExecutor(FakeJobs()), MemoryTracker(),
            open_study=lambda *_: study,
        ).run()  # fmt: skip

    asks = {1: [Request(verb="extend", trials=2), Request(verb="stop")]}
    view, _, study = run(tmp_path / "s", asks, trials=3)
    assert len(view.trials) == 2 and view.spec.budget.trials == 5
    view = again(3, study)
    assert len(view.trials) == view.spec.budget.trials == 5
    assert load_view(tmp_path / "s") == view
    view = again(6, study)
    assert len(view.trials) == view.spec.budget.trials == 6, "what the recipe says now counts"


def test_a_paused_sweep_still_says_so_when_its_budget_has_grown(tmp_path, monkeypatch):
    notes = []

    def slept(_seconds):
        notes.append(load_view(tmp_path / "s").note)
        verb = "extend" if len(notes) == 1 else "resume"
        post(tmp_path / "s", Request(verb=verb, trials=1))

    monkeypatch.setattr(loop.time, "sleep", slept)
    view, _, _ = run(tmp_path / "s", {1: [Request(verb="pause")]}, trials=3)
    assert notes[:2] == ["paused; `mirsweep resume` goes on"] * 2
    assert len(view.trials) == 4
