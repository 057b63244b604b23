"""Laws of the mixture stream: a pure function, without repeats, close to its weights always."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.stream import MixtureStream, floor_sum, permuted
from mir.errors import ConfigError

GOLDEN = [
    ("b", 2),
    ("a", 1),
    ("c", 1),
    ("b", 3),
    ("a", 2),
    ("c", 0),
    ("a", 3),
    ("a", 4),
    ("b", 0),
    ("a", 0),
    ("c", 2),
    ("b", 4),
]
WEIGHTS = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6)


def stream_of(weights, sizes=None, seed=0):
    names = [f"s{i}" for i in range(len(weights))]
    sizes = sizes or [97] * len(weights)
    return MixtureStream(
        dict(zip(names, sizes, strict=True)), dict(zip(names, weights, strict=True)), seed
    )


@given(st.integers(0, 60), st.integers(1, 80), st.integers(0, 200), st.integers(0, 200))
def test_floor_sum_equals_the_plain_sum(n, modulus, a, b):
    assert floor_sum(n, modulus, a, b) == sum((a * j + b) // modulus for j in range(n))


@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_permuted_is_a_permutation(size, key):
    assert sorted(permuted(i, size, key) for i in range(size)) == list(range(size))


def test_permutations_reach_every_place_equally_often():
    """Chi-square of where index 0 of 8 goes over 4,000 keys; 29.9 is its 99.99 % quantile."""
    seen = Counter(permuted(0, 8, key * 7919) for key in range(4000))
    assert sum((seen[i] - 500) ** 2 / 500 for i in range(8)) < 29.9


@given(WEIGHTS, st.integers(-(2**40), 2**70))
@settings(max_examples=30, deadline=None)
def test_every_prefix_follows_the_weights_within_four_samples(weights, seed):
    stream = stream_of(weights, seed=seed)
    seen: Counter[str] = Counter()
    for position in range(400):
        seen[stream.pick(position)[0]] += 1
        for i, weight in enumerate(weights):
            assert abs(seen[f"s{i}"] - (position + 1) * weight / sum(weights)) < 4
    assert stream.counts(400) == {f"s{i}": seen[f"s{i}"] for i in range(len(weights))}


@given(WEIGHTS, st.integers(0, 10**12))
@settings(deadline=None)
def test_the_share_of_any_prefix_is_bounded_even_far_out(weights, positions):
    """The error of a golden-ratio sequence grows with the logarithm of the position only."""
    counts = stream_of(weights).counts(positions)
    assert sum(counts.values()) == positions
    for i, weight in enumerate(weights):
        assert abs(counts[f"s{i}"] - positions * weight / sum(weights)) < 8


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_source_repeats_nothing_before_its_epoch_ends(sizes, seed):
    stream = stream_of([1.0] * len(sizes), sizes, seed)
    visits: dict[str, list[int]] = {f"s{i}": [] for i in range(len(sizes))}
    for position in range(200):
        name, index = stream.pick(position)
        visits[name].append(index)
    for i, size in enumerate(sizes):
        order = visits[f"s{i}"]
        for start in range(0, len(order) - size + 1, size):
            assert sorted(order[start : start + size]) == list(range(size))


def test_epochs_and_seeds_differ_in_their_order():
    stream, other = stream_of([1.0], [50]), stream_of([1.0], [50], seed=1)
    first = [stream.pick(p)[1] for p in range(50)]
    assert first != [stream.pick(p)[1] for p in range(50, 100)]
    assert first != [other.pick(p)[1] for p in range(50)]
    assert first != sorted(first)


def test_sources_of_equal_size_are_not_visited_in_the_same_order():
    stream = stream_of([1.0, 1.0], [40, 40])
    visits: dict[str, list[int]] = {"s0": [], "s1": []}
    for position in range(60):
        name, index = stream.pick(position)
        visits[name].append(index)
    assert visits["s0"][:20] != visits["s1"][:20]


def test_the_order_is_fixed_for_ever():
    """A golden order: studies are resumed with later versions of this package."""
    stream = MixtureStream({"a": 5, "b": 7, "c": 3}, {"a": 0.5, "b": 0.3, "c": 0.2}, 42)
    assert [stream.pick(p) for p in range(12)] == GOLDEN


def test_weight_zero_never_appears_and_may_be_empty():
    stream = MixtureStream({"a": 3, "b": 0}, {"a": 1.0, "b": 0.0}, 0)
    assert {stream.pick(p)[0] for p in range(500)} == {"a"}


@pytest.mark.parametrize(
    "weights", [{}, {"a": 0.0}, {"a": -0.5, "b": 1.0}, {"a": float("nan")}, {"a": float("inf")}]
)
def test_what_is_no_mixture_is_refused(weights):
    with pytest.raises(ConfigError, match=r"data\.mixture: .* at least one is above 0"):
        MixtureStream({"a": 3, "b": 3}, weights, 0)


def test_an_empty_source_in_use_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"data\.sources\.b: no samples"):
        MixtureStream({"a": 3, "b": 0}, {"a": 1.0, "b": 1.0}, 0)
