"""The ledger and the budgets: every device-hour is counted once and what is spent ends a sweep."""

from dataclasses import replace
from itertools import count

import pytest
from pydantic import ValidationError
from small_world import FakeJobs, FakeStudy, lost, make_sweep
from sweep_views import make_trial, make_view

from orchestrator.budget import spent
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.ledger import ledger
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.decision import Verdict
from sweeps.spec import BudgetSpec, ResourceSpec, SweepSpec


def with_(view, *, budget=None, resources=None, **fields):
    changes = {"budget": budget or view.spec.budget, "resources": resources or view.spec.resources}
    return replace(view, spec=view.spec.model_copy(update=changes), **fields)


def scored_in(seconds, trial):
    """The trial with scores that took so long each."""
    slow = tuple(score.model_copy(update={"seconds": seconds}) for score in trial.scores)
    return replace(trial, scores=slow)


def test_hours_are_those_of_devices_and_saved_ones_those_not_run():
    half = replace(
        scored_in(36.0, make_trial(1, state=TrialState.PRUNED, samples=2048)),
        seconds=1800.0,
        verdict=Verdict.PRUNE,
    )
    broken = scored_in(36.0, make_trial(2, state=TrialState.FAILED, samples=512))
    broken = replace(broken, seconds=360.0)
    view = replace(make_view(), trials={1: half, 2: broken}, busy=2160.0)
    gang = ResourceSpec(workers=4, gpus_per_worker=0.5, price_per_hour=3.0)
    found = ledger(with_(view, resources=gang), view.updated)
    assert found.unit == "GPU-hours"
    assert found.used == pytest.approx(2160 / 3600 * 2)
    assert found.saved == pytest.approx(0.5 * 2), "half of the samples were left"
    assert found.wasted == pytest.approx(0.1 * 2)
    assert found.scoring == pytest.approx((5 + 2) * 0.01 * 2)
    assert found.cost == pytest.approx(3.0 * found.used)
    assert found.wrong is None, "nobody ended, so nothing is known of how trials go on"
    lines = dict(found.lines())
    assert lines["used"] == "1.2 GPU-hours, 12 % of it for scoring"
    assert lines["saved"] == "1 GPU-hours by stopping 1 early"
    assert ledger(view, view.updated).unit == "core-hours"


def test_what_was_stopped_ahead_of_the_best_counts_as_a_mistake():
    complete = {n: make_trial(n, quality=0.3) for n in range(4)}
    good = replace(
        make_trial(5, quality=1.0, moca=True, state=TrialState.PRUNED, samples=2048),
        verdict=Verdict.PRUNE,
    )
    bad = replace(
        make_trial(6, quality=0.0, rate=2e-4, state=TrialState.PRUNED, samples=2048),
        verdict=Verdict.PRUNE,
    )
    view = make_view()
    for trial, least, most in ((good, 0.9, 1.0), (bad, 0.0, 0.1)):
        found = ledger(replace(view, trials={**complete, trial.number: trial}), view.updated)
        assert least <= found.wrong <= most
    audited = {**complete, 7: replace(make_trial(7, quality=1.0, moca=True), verdict=Verdict.AUDIT)}
    found = ledger(replace(view, trials=audited), view.updated)
    assert (found.audited, found.mistaken) == (1, 1)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (BudgetSpec(hours=1.0), None),
        (BudgetSpec(hours=0.5), "the budget of 0.5 h is spent"),
        (BudgetSpec(samples=5000), "the budget of 5,000 samples is spent"),
        (BudgetSpec(samples=5001), None),
        (BudgetSpec(gpu_hours=4.0), "the budget of 4 GPU-hours is spent"),
        (BudgetSpec(gpu_hours=4.1), None),
        (BudgetSpec(cost=10.0), "the budget of 10 at 2.5 a device-hour is spent"),
        (BudgetSpec(cost=10.1), None),
    ],
)
def test_whichever_budget_is_spent_first_ends_the_sweep(budget, expected):
    gang = ResourceSpec(workers=4, gpus_per_worker=1, price_per_hour=2.5)
    view = with_(make_view(), budget=budget, resources=gang, busy=1800.0, samples=5000)
    running = replace(make_trial(0, state=TrialState.RUNNING), launched=view.session)
    assert spent(view, view.session + 1800, [running]) == expected


def test_a_cost_without_a_price_is_refused():
    spec = make_sweep().model_dump(mode="json") | {"budget": {"cost": 5}}
    with pytest.raises(ValidationError, match="price_per_hour"):
        SweepSpec.model_validate(spec)


def test_a_sweep_ends_by_samples_and_the_log_adds_up(tmp_path):
    spec = make_sweep(40, seed=3).model_copy(update={"budget": BudgetSpec(trials=40, samples=300)})
    jobs = FakeJobs(failures={1: [lost()]})
    controller = Controller(
        spec,
        tmp_path / "s",
        InlineExecutor(jobs),
        MemoryTracker(),
        open_study=lambda spec, folder: FakeStudy(spec),
        clock=map(float, count(0, 2)).__next__,  # slow enough for every step to be kept
    )
    view = controller.run()
    assert view.note == "the budget of 300 samples is spent"
    assert 300 <= view.samples <= sum(jobs.trained.values()) < 300 + 64
    assert view.trials[1].redone > 0
    trials = view.trials.values()
    assert view.busy == pytest.approx(sum(trial.seconds for trial in trials))
    assert view.samples == sum(trial.samples + trial.redone for trial in trials)
    again = load_view(tmp_path / "s")
    assert (again.busy, again.samples) == (pytest.approx(view.busy), view.samples)
