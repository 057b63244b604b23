"""Caps by epochs and batches of like length: laws of what is laid over the stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jobs.data.caps import capped_weights
from jobs.data.grouping import LengthGroups
from jobs.data.stream import MixtureStream
from mir.errors import ConfigError

SOURCES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(1, 500), st.none() | st.floats(0.01, 20)),
    min_size=1,
    max_size=5,
)


def named(values):
    return {f"s{i}": value for i, value in enumerate(values)}


@given(SOURCES, st.integers(1, 5000))
@settings(deadline=None)
def test_no_source_is_seen_beyond_its_cap_and_the_rest_keep_their_proportions(sources, samples):
    weights, sizes = named([s[0] for s in sources]), named([s[1] for s in sources])
    caps = {f"s{i}": s[2] for i, s in enumerate(sources) if s[2] is not None}
    used = [name for name in weights if weights[name] > 1e-6]
    assume(used)
    weights = {name: weights[name] if name in used else 0.0 for name in weights}
    room = {n: caps[n] * sizes[n] / samples if n in caps else 1.0 for n in used}
    if sum(room.values()) < 1:
        assume(sum(room.values()) < 1 - 1e-6)
        with pytest.raises(ConfigError, match=r"data\.max_epochs: leaves .* samples to see"):
            capped_weights(weights, sizes, caps, samples)
        return
    found = capped_weights(weights, sizes, caps, samples)
    assert list(found) == list(weights)
    assert sum(found.values()) == pytest.approx(1)
    for name in weights:
        assert found[name] <= room.get(name, 0.0) + 1e-9
    free = [name for name in used if found[name] < room[name] - 1e-9]
    for name in free:
        assert found[name] / weights[name] == pytest.approx(found[free[0]] / weights[free[0]])
        assert found[name] >= weights[name] / sum(weights.values()) - 1e-9


@given(SOURCES, st.integers(1, 2000), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_stream_keeps_the_caps_to_a_few_samples(sources, samples, seed):
    weights, sizes = named([s[0] + 0.01 for s in sources]), named([s[1] for s in sources])
    caps = {f"s{i}": s[2] for i, s in enumerate(sources) if s[2] is not None}
    try:
        found = capped_weights(weights, sizes, caps, samples)
    except ConfigError:
        return
    for name, count in MixtureStream(sizes, found, seed).counts(samples).items():
        assert count <= caps.get(name, samples) * sizes[name] + 4


def test_without_caps_weights_are_only_normalised():
    assert capped_weights({"a": 1, "b": 3, "c": 0}, {"a": 1, "b": 1, "c": 1}, {}, 9) == {
        "a": 0.25, "b": 0.75, "c": 0.0,
    }  # fmt: skip


def groups(batch, window, sizes=(13, 40), seed=3, asked=None):
    stream = MixtureStream(named(sizes), named([1.0] * len(sizes)), seed)

    def lengths(picks):
        if asked is not None:
            asked.append(len(picks))
        return [(index * 7) % 11 for _, index in picks]

    return stream, LengthGroups(stream, lengths, batch=batch, window=window)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_each_stretch_holds_what_the_stream_holds_there(batch, window, seed):
    stream, grouped = groups(batch, window, seed=seed)
    size = batch * window
    for start in (0, size, 5 * size):
        positions = range(start, start + size)
        assert sorted(map(grouped.pick, positions)) == sorted(map(stream.pick, positions))


def test_a_stretch_is_cut_into_batches_that_do_not_overlap_in_length():
    _, grouped = groups(8, 16, sizes=(80, 90))
    picks = [grouped.pick(p) for p in range(128)]
    spans = []
    for start in range(0, 128, 8):
        lengths = [(index * 7) % 11 for _, index in picks[start : start + 8]]
        spans.append((min(lengths), max(lengths)))
    ordered = sorted(spans)
    assert all(a[1] <= b[0] for a, b in pairwise(ordered))
    assert spans != ordered


@given(
    st.integers(1, 9),
    st.integers(2, 9),
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
    st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_every_source_is_visited_without_repeats_until_its_epoch_ends(batch, window, sizes, seed):
    _, grouped = groups(batch, window, sizes=sizes, seed=seed)
    visits = {}
    for name, index in map(grouped.pick, range(4 * batch * window)):
        visits.setdefault(name, []).append(index)
    for name, size in named(sizes).items():
        for start in range(0, len(visits.get(name, [])), size):
            epoch = visits[name][start : start + size]
            assert len(set(epoch)) == len(epoch)


def test_a_batch_repeats_hardly_more_samples_than_without_groups():
    """Only where two epochs meet in it. By length alone 301 of these 1,024 were repeats."""
    stream, grouped = groups(64, 16, sizes=(100, 2000))

    def repeats(order):
        picks = [order.pick(position) for position in range(1024)]
        return sum(64 - len(set(picks[start : start + 64])) for start in range(0, 1024, 64))

    assert repeats(grouped) <= 2 * repeats(stream) < 40


def test_any_position_can_be_asked_for_first():
    _, grouped = groups(4, 5)
    whole = [grouped.pick(p) for p in range(200)]
    for position in (199, 3, 77):
        assert groups(4, 5)[1].pick(position) == whole[position]


def test_a_stretch_is_sorted_once():
    asked = []
    _, grouped = groups(4, 5, asked=asked)
    for position in range(40):
        grouped.pick(position)
    assert asked == [20, 20]
