"""Study, guard and stopping together, on a made-up world with the traps of design section 3.

High learning rates collapse the projector: the lowest MIR of all with a loss above its start. Of
the rest, rates near 3e-3 and mixtures without the bad source are best.
"""

import math

import pytest
from sweeps_scores import a_sweep, ask, scored

from sweeps.decision import Verdict
from sweeps.guard import feasibility
from sweeps.objective import objective_value
from sweeps.stopping import decide
from sweeps.study import Study

COLLAPSE = 0.02


def measured(shown, samples):
    """The score of a trial at `samples` of 1,000; the same on every call."""
    if samples == 0:
        return scored(0, 3.68, loss=7.84, gap=0.0, gap_error=0.03)
    done = samples / 1000
    if shown["learning_rate"] > COLLAPSE:
        return scored(samples, 2.0, loss=8.5, gap=-0.02, gap_error=0.03)
    badness = abs(math.log10(shown["learning_rate"] / 3e-3)) + shown["mixture/bad"]
    mir = 3.9 - done * (1.2 - 0.5 * badness)
    return scored(samples, mir, loss=7.84 - 4 * done + badness, gap=done * 0.5)


def simulate(sweep, folder):
    """Run all trials one after the other, as the controller does."""
    study, curves, ends = Study(sweep, folder), {}, {}
    for _ in range(sweep.budget.trials):
        trial = ask(study)
        others, curves[trial.number] = dict(curves), []
        for samples in range(0, 1001, 100):
            curves[trial.number].append(measured(trial.shown, samples))
            mine = curves[trial.number]
            found = feasibility(mine, sweep.study.guard, list(others.values()))
            value = objective_value("mir", mine[-1])
            if found.feasible:
                study.report(trial.number, samples, value)
            decision = decide(trial.number, mine, others, sweep=sweep, job=trial.job)
            if decision.verdict is Verdict.PRUNE:
                study.tell_pruned(trial.number, decision.reason, found.violations)
                break
        else:
            study.tell_complete(trial.number, value, found.violations)
        ends[trial.number] = (trial, samples, decision, found.feasible)
    return study, ends


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    sweep = a_sweep(
        budget={"trials": 20}, stop={"confidence": 0.8}, study={"seed": 1, "sampler": "tpe"}
    )
    return simulate(sweep, tmp_path_factory.mktemp("study"))


def test_a_collapsed_projector_never_wins(outcome):
    study, ends = outcome
    collapsed = [n for n, (t, *_) in ends.items() if t.shown["learning_rate"] > COLLAPSE]
    assert collapsed
    assert study.best().number not in collapsed
    assert study.best().value > 2.0
    for number in collapsed:
        _, samples, decision, feasible = ends[number]
        assert not feasible
        assert samples < 1000
        assert "infeasible" in decision.reason


def test_bad_rates_are_stopped_before_their_full_budget(outcome):
    _, ends = outcome
    slow = [end for end in ends.values() if end[0].shown["learning_rate"] < 3e-4]
    assert all(samples < 1000 for trial, samples, _, _ in slow if trial.number >= 8)
    stopped = [decision for _, samples, decision, _ in ends.values() if samples < 1000]
    assert any("against a median of" in decision.reason for decision in stopped)


def test_the_best_trial_is_a_good_one(outcome):
    study, ends = outcome
    best = ends[study.best().number][0].shown
    assert 1e-3 < best["learning_rate"] < 1e-2
    assert best["mixture/bad"] < 0.5


def test_stopped_and_complete_trials_are_told_apart(outcome):
    study, ends = outcome
    expected = {n: "COMPLETE" if end[1] == 1000 else "PRUNED" for n, end in ends.items()}
    assert study.states() == expected
