"""Mixtures: laws of the encodings, exact uniformity, floors, fixed weights, caps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from sweeps.mixtures import Simplex

ENCODINGS = ("exponential", "stick-breaking")
NAMES = tuple("abcdefgh")


@st.composite
def simplexes(draw):
    size = draw(st.integers(2, 8))
    floor = draw(st.floats(0, 0.9 / size))
    left = 0.99 - floor * size
    fixed = {"x": draw(st.floats(0, left))} if draw(st.booleans()) else {}
    return Simplex(
        names=NAMES[:size], floor=floor, fixed=fixed, encoding=draw(st.sampled_from(ENCODINGS))
    )


@settings(deadline=None)
@given(simplexes(), st.data())
def test_decoded_weights_are_a_mixture_that_keeps_its_floors(simplex, data):
    size = len(simplex.parameters)
    u = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    weights = simplex.decode(u)
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weights[name] >= simplex.floor - 1e-12 for name in simplex.names)
    assert {name: weights[name] for name in simplex.fixed} == dict(simplex.fixed)


@settings(deadline=None)
@given(simplexes(), st.data())
def test_encoding_is_undone_by_decoding(simplex, data):
    size = len(simplex.parameters)
    u = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    weights = simplex.decode(u)
    again = simplex.decode(simplex.encode(weights))
    assert again == pytest.approx(weights, abs=1e-6)


@settings(deadline=None)
@given(simplexes())
def test_the_uniform_mixture_can_be_encoded(simplex):
    weights = simplex.decode(simplex.encode(simplex.uniform()))
    assert weights == pytest.approx(simplex.uniform(), abs=1e-9)
    assert len({round(weights[name], 9) for name in simplex.names}) == 1


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_uniform_parameters_give_uniform_mixtures(encoding, size):
    """Dirichlet(1): every weight is Beta(1, k - 1), every pair's sum Beta(2, k - 2)."""
    simplex = Simplex(names=NAMES[:size], encoding=encoding)
    u = np.random.default_rng(size).random((4000, len(simplex.parameters)))
    weights = np.array([list(simplex.decode(row).values()) for row in u])
    for i in range(size):
        assert kstest(weights[:, i], "beta", args=(1, size - 1)).pvalue > 1e-3
    if size > 2:
        pair = weights[:, 0] + weights[:, -1]
        assert kstest(pair, "beta", args=(2, size - 2)).pvalue > 1e-3


def test_normalised_uniform_numbers_would_fail_the_same_test():
    u = np.random.default_rng(0).random((4000, 5))
    first = (u / u.sum(axis=1, keepdims=True))[:, 0]
    assert kstest(first, "beta", args=(1, 4)).pvalue < 1e-10


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_floors_and_fixed_weights_leave_a_uniform_smaller_simplex(encoding):
    simplex = Simplex(names=("a", "b", "c"), floor=0.1, fixed={"x": 0.2}, encoding=encoding)
    u = np.random.default_rng(1).random((4000, len(simplex.parameters)))
    first = np.array([simplex.decode(row)["a"] for row in u])
    assert kstest((first - 0.1) / 0.5, "beta", args=(1, 2)).pvalue > 1e-3


@settings(deadline=None)
@given(simplexes(), st.data())
def test_caps_hold_and_the_rest_goes_to_the_others(simplex, data):
    size = len(simplex.parameters)
    u = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    lowest = simplex.uniform()
    caps = {name: min(1.0, lowest[name] + data.draw(st.floats(1e-6, 1))) for name in simplex.names}
    weights = simplex.decode(u, caps)
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weights[name] <= cap + 1e-6 for name, cap in caps.items())
    assert all(weights[name] >= simplex.floor - 1e-9 for name in simplex.names)


def test_a_mixture_within_its_caps_is_not_changed():
    simplex = Simplex(names=("a", "b"))
    u = simplex.encode({"a": 0.3, "b": 0.7})
    assert simplex.decode(u, {"a": 0.3, "b": 0.7}) == pytest.approx({"a": 0.3, "b": 0.7})


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_corners_of_the_parameters_are_mixtures_too(encoding):
    simplex = Simplex(names=("a", "b", "c"), encoding=encoding)
    for value in (0.0, 1.0):
        weights = simplex.decode([value] * len(simplex.parameters))
        assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"names": ("a",)}, "nothing varies"),
        ({"names": ("a", "b"), "floor": 0.6}, r"sum to 1.2.*lower them"),
        ({"names": ("a", "b"), "floor": 0.5}, "sum to 1,"),
        ({"names": ("a", "b"), "fixed": {"c": 1.5}}, "sum to 1.5"),
    ],
)
def test_impossible_simplexes_are_refused(given_, message):
    with pytest.raises(ValueError, match=message):
        Simplex(**given_)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 0.5, "b": 0.3}, "sum to 0.8"),
        ({"a": 0.5, "z": 0.5}, "unknown sources"),
        ({"a": 0.65, "b": 0.05, "x": 0.3}, "'b' is below the floor"),
        ({"a": 0.5, "b": 0.4, "x": 0.1}, "fixed at 0.3"),
    ],
)
def test_weights_outside_the_simplex_cannot_be_encoded(weights, message):
    simplex = Simplex(names=("a", "b"), floor=0.1, fixed={"x": 0.3})
    with pytest.raises(ValueError, match=message):
        simplex.encode(weights)


@pytest.mark.parametrize(
    ("caps", "message"),
    [
        ({"a": 0.2, "b": 0.2}, "raise max_epochs"),
        ({"a": 0.05, "b": 1.0}, "'a' weighs at least 0.1"),
        ({"a": 1.0, "b": 1.0, "x": 0.2}, "'x' weighs at least 0.3"),
    ],
)
def test_caps_that_leave_no_mixture_are_refused(caps, message):
    simplex = Simplex(names=("a", "b"), floor=0.1, fixed={"x": 0.3})
    with pytest.raises(ValueError, match=message):
        simplex.decode([0.5] * len(simplex.parameters), caps)
