"""Scoring keeps to its share of a run's time by leaving out scheduled scores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cadence import Cadence, Costs, cadence_of
from jobs.spec import JobSpec

SOURCE = {"kind": "jsonl", "path": "a.jsonl"}


def spec(**changes) -> JobSpec:
    return JobSpec.model_validate(
        {"data": {"sources": {"a": SOURCE}, "validation": SOURCE}, **changes}
    )


def simulated(cadence: Cadence, step_s: float, score_s: float, batch: int):
    """A run at constant costs: the samples that were scored, and scoring's share at the end."""
    trained = scoring = 0.0
    scored, decided = [], -1
    for samples in range(0, cadence.total + 1, batch):
        trained += step_s if samples else 0.0
        if not (cadence.due(samples, decided) or samples == cadence.total):
            continue
        decided = samples
        costs = Costs(trained=trained, scoring=scoring, score=score_s if scored else 0.0)
        if cadence.choose(samples, costs).make:
            scored.append(samples)
            scoring += score_s
    return scored, scoring / (trained + scoring)


def test_cheap_scores_are_all_made():
    cadence = Cadence(every=100, total=1000, limit=0.03)
    assert simulated(cadence, 1.0, 0.01, 10)[0] == list(range(0, 1001, 100))


def test_without_a_limit_no_score_is_spared():
    cadence = Cadence(every=100, total=1000, limit=1.0)
    assert simulated(cadence, 1e-3, 99.0, 10)[0] == list(range(0, 1001, 100))


def test_the_first_the_last_and_the_promised_scores_cost_what_they_cost():
    cadence = Cadence(every=100, total=1000, limit=0.01, always=frozenset({3}))
    assert simulated(cadence, 1e-3, 99.0, 10)[0] == [0, 300, 1000]


def test_a_spared_score_says_why():
    cadence = Cadence(every=100, total=1000, limit=0.03)
    choice = cadence.choose(100, Costs(trained=10.0, scoring=2.0, score=2.0))
    assert not choice.make
    assert "16.7%" in choice.reason and "3.0%" in choice.reason
    assert "only the last" in choice.reason


@given(
    every=st.integers(1, 20), batch=st.integers(1, 7), scores=st.integers(2, 60),
    cost=st.floats(0.01, 100), limit=st.floats(0.001, 0.9),
)  # fmt: skip
def test_the_share_stays_below_the_limit_and_scores_stay_on_the_schedule(
    every, batch, scores, cost, limit
):
    total = (every * scores // batch + 1) * batch
    cadence = Cadence(every=every, total=total, limit=limit)
    scored, share = simulated(cadence, 1.0, cost, batch)
    every_due, _ = simulated(Cadence(every=every, total=total, limit=1.0), 1.0, cost, batch)
    assert set(scored) <= set(every_due)
    assert (scored[0], scored[-1]) == (0, total)
    if len(scored) > 2:
        assert share <= limit + 1e-9


@given(costs=st.tuples(st.floats(0.1, 50), st.floats(0.1, 50)), limit=st.floats(0.01, 0.5))
def test_runs_that_were_stretched_differently_share_the_scores_of_the_sparser(costs, limit):
    cadence = Cadence(every=10, total=640, limit=limit)
    sets = [set(simulated(cadence, 1.0, cost, 10)[0]) for cost in costs]
    assert min(sets, key=len) <= max(sets, key=len)


def test_the_default_promises_the_first_score_that_a_stopping_rule_looks_at():
    default = cadence_of(
        spec(optim={"samples": 1000, "global_batch": 10}, score={"every_samples": 100})
    )
    assert (default.total, default.limit, default.always) == (1000, 0.03, {3})
    own = cadence_of(spec(score={"every_samples": 100, "always": [100, 250]}))
    assert own.always == {1, 3}
    with pytest.raises(ValueError, match="overhead_limit"):
        spec(score={"overhead_limit": 0})
