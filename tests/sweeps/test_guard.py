"""The guard: a collapsed projector never counts, whatever its MIR."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps_scores import curve, scored

from sweeps.guard import CONSTRAINTS, feasibility, guard_mistakes, outdone
from sweeps.spec import GuardSpec

DEFAULT = GuardSpec()
NEAR = GuardSpec(constraints={"loss-near-best": 0.1})


def test_the_collapse_of_the_design_is_infeasible():
    """Design section 3: MIR 2.42, best of all, with a loss of 8.54 above the start of 7.84."""
    found = feasibility([scored(0, 3.68, 7.84, 0.03), scored(25, 2.42, 8.54, -0.02)], DEFAULT)
    assert not found.feasible
    assert found.violations["loss-below-start"] == pytest.approx(0.70)
    assert "8.54 is not below its start 7.84" in found.reason


def test_a_model_that_learns_is_feasible():
    found = feasibility([scored(0, 3.68, 7.84, 0.03), scored(200, 3.11, 3.36, 0.57)], DEFAULT)
    assert found.feasible
    assert found.reason == ""
    assert all(violation <= 0 for violation in found.violations.values())


def test_a_gap_below_zero_counts_only_beyond_its_noise():
    start = scored(0, 3.7, 7.8, 0.0)
    within = feasibility([start, scored(25, 3.9, 6.2, -0.05, gap_error=0.03)], DEFAULT)
    beyond = feasibility([start, scored(25, 3.9, 6.2, -0.07, gap_error=0.03)], DEFAULT)
    assert within.feasible
    assert not beyond.feasible
    assert beyond.violations["gap-not-negative"] == pytest.approx(0.01)
    assert "worse than wrong ones by 0.07" in beyond.reason


def test_near_best_compares_at_equal_samples_only():
    mine = [scored(0, 3.7, 7.8, 0), scored(100, 3.0, 4.5, 0.2)]
    others = [[scored(100, 3.1, 4.0, 0.2), scored(200, 3.0, 2.0, 0.3)]]
    found = feasibility(mine, NEAR, others)
    assert not found.feasible
    assert found.violations["loss-near-best"] == pytest.approx(0.1)
    assert "10 % above the best feasible one at 100 samples" in found.reason


def test_what_cannot_be_judged_yet_counts_as_met():
    guard = GuardSpec(constraints={"loss-below-start": None, "loss-near-best": 0.0})
    found = feasibility([scored(0, 3.7, 7.8, 0)], guard)
    assert found.feasible
    assert found.violations == {"loss-below-start": 0.0, "loss-near-best": 0.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_infeasible(value):
    found = feasibility([scored(0, 3.7, 7.8, 0), scored(25, 2.0, value, 0.1)], DEFAULT)
    assert not found.feasible
    assert found.violations["loss-below-start"] == math.inf


@settings(deadline=None)
@given(curve(), st.floats(0, 3))
def test_feasible_means_that_no_violation_is_above_zero(scores, factor):
    guard = GuardSpec(constraints={"loss-below-start": None, "gap-not-negative": factor})
    found = feasibility(scores, guard)
    assert found.feasible == all(violation <= 0 for violation in found.violations.values())
    assert found.feasible == (found.reason == "")
    assert list(found.violations) == list(guard.constraints)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"loss-below-strat": None}, "'loss-below-start'"),
        ({"loss-below-start": 1.0}, "takes none"),
        ({"gap-not-negative": None}, "factor of the gap"),
        ({"loss-near-best": -1.0}, "fraction above the best, 0 or more"),
    ],
)
def test_wrong_constraints_are_named(constraints, message):
    mistakes = guard_mistakes(GuardSpec(constraints=constraints))
    assert message in mistakes[0].text
    assert mistakes[0].path[:3] == ("study", "guard", "constraints")


def test_the_default_guard_and_all_known_constraints_are_valid():
    assert guard_mistakes(DEFAULT) == []
    everything = {name: None if c.takes is None else 1.0 for name, c in CONSTRAINTS.items()}
    assert guard_mistakes(GuardSpec(constraints=everything)) == []


ABOVE = GuardSpec(constraints={"gap-above-noise": 2.0})


@pytest.mark.parametrize(
    ("gap", "noise", "counts"), [(0.05, 0.02, True), (0.03, 0.02, False), (0.0, 0.0, False)]
)
def test_a_model_must_see_the_picture_beyond_noise(gap, noise, counts):
    """The last case is a projector that gives every picture the same tokens."""
    found = feasibility([scored(0, 3.7, 7.8, 0), scored(9, 2.0, 3.0, gap, gap_error=noise)], ABOVE)
    assert found.feasible is counts
    assert ("not better than wrong ones" in found.reason) is not counts


def test_before_training_no_gap_is_asked_for():
    assert feasibility([scored(0, 3.7, 7.8, -0.1)], ABOVE).feasible


@st.composite
def ended(draw):
    """Validation losses by trial and samples, equal ones and broken ones among them."""
    loss = st.sampled_from([0.0, 1.0, 1.1, 1.2, 3.0, math.inf, math.nan])
    return draw(
        st.dictionaries(
            st.integers(0, 9), st.dictionaries(st.sampled_from([100, 200, 300]), loss, max_size=3)
        )
    )


@given(ended(), st.randoms())
def test_who_is_outdone_does_not_depend_on_the_order(losses, rng):
    """As the guard says it of a trial whose score comes in when all the others are there."""
    order = list(losses)
    rng.shuffle(order)
    found = outdone({number: losses[number] for number in order}, NEAR)
    for number, mine in losses.items():
        if not mine:
            assert number not in found
            continue
        last = max(mine)
        others = [
            [scored(at, 3.0, loss) for at, loss in losses[n].items() if math.isfinite(loss)]
            for n in losses
            if n != number
        ]
        judged = feasibility([scored(last, 3.0, mine[last])], NEAR, others)
        assert found.get(number, "") == judged.reason


def test_nobody_is_outdone_where_the_guard_does_not_ask():
    assert outdone({0: {100: 9.0}, 1: {100: 1.0}}, DEFAULT) == {}
