"""The board: whatever the order and the repeats, its ranks are those of all points afresh."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.board import EVERYONE, Board, Group, Point, goes_on, quantile

STEPS = (100, 200, 300, 400)
EVEN = Group(("even",), lambda number: number % 2 == 0)
said = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(STEPS), st.integers(0, 9)), max_size=40
)


def played(moves):
    """A board that was asked all along, and the points that must be on it in the end."""
    board, series = Board(), {}
    for number, samples, value in moves:
        board.rung(200, EVERYONE, 0, -1), board.rung(300, EVEN, 0, -1)
        board.add(number, Point(samples, float(value), 0.1))
        kept = {at: v for at, v in series.get(number, {}).items() if at < samples}
        series[number] = kept | {samples: float(value)}
    return board, series


@settings(max_examples=150, deadline=None)
@given(said, st.sampled_from(STEPS), st.integers(-1, 5))
def test_ranks_at_equal_samples(moves, samples, but):
    board, series = played(moves)
    expected = sorted(
        (points[samples], number, 0.1)
        for number, points in series.items()
        if samples in points and number != but
    )
    found = board.at(samples, 100, 0, but)
    assert list(found) == expected
    assert list(found.values) == [entry[0] for entry in expected]


@settings(max_examples=150, deadline=None)
@given(said, st.sampled_from(STEPS), st.sampled_from([EVERYONE, EVEN]), st.integers(-1, 5))
def test_ranks_at_a_rung(moves, step, group, but):
    board, series = played(moves)
    expected = sorted(
        (points[min(past)], number, 0.1)
        for number, points in series.items()
        if (past := [at for at in points if at >= step]) and group.holds(number) and number != but
    )
    found = board.rung(step, group, 0, but)
    assert list(found) == expected
    assert list(found.values) == [entry[0] for entry in expected]


def test_within_one_slack_the_newest_of_each_trial_counts():
    points = {0: [Point(210, 1.0, 0.0), Point(290, 3.0, 0.0)], 1: [Point(200, 0.0, 0.0)]}
    board = Board.of(points)
    assert [entry[0] for entry in board.at(300, 100, 0, -1)] == [3.0]
    assert [entry[0] for entry in board.at(300, 101, 0, -1)] == [0.0, 3.0]
    assert [entry[0] for entry in board.at(300, 101, 205, -1)] == [3.0]
    assert list(board.at(300, 100, 0, 0)) == []


def test_a_quantile_of_equal_values_is_that_very_value():
    entries = [(0.1, n, 0.0) for n in range(7)]
    assert {quantile(entries, share / 10)[0] for share in range(11)} == {0.1}


def test_the_best_share_counts_me_too():
    entries = [(1.0, 0, 0.0), (2.0, 1, 0.0)]
    assert goes_on(entries, (0.5, 9, 0.0), 3, "minimize")[0] == 0.5
    assert goes_on(entries, (3.0, 9, 0.0), 3, "minimize")[0] == 1.0
    assert goes_on(entries, (0.5, 9, 0.0), 3, "maximize")[0] == 2.0


def test_a_later_score_of_equal_value_does_not_take_the_rung_with_it():
    board = Board()
    board.add(1, Point(300, 2.0, 0.01))
    board.add(1, Point(400, 2.0, 0.01))
    assert board.rung(300, EVERYONE, 300, 0) == [(2.0, 1, 0.01)]
    board.add(1, Point(400, 1.0, 0.01))  # a restarted job scores again where it had been
    assert board.rung(300, EVERYONE, 300, 0) == [(2.0, 1, 0.01)]
