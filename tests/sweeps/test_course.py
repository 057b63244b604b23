"""A resumed trial's training loss has the course that it would have had without interruption."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeps.course import HISTORY, WINDOW, Course

LOSSES = st.lists(st.floats(0.1, 9.9) | st.just(float("nan")), min_size=1, max_size=60)


def heard(course, losses, begin=0):
    """What it says of each of these steps of one sample."""
    return [course.hear(begin + n, loss, 2.0) for n, loss in enumerate(losses, start=1)]


@given(LOSSES, st.data())
def test_resumed_at_its_newest_checkpoint_it_says_the_same_of_every_later_step(losses, data):
    at = data.draw(st.integers(1, len(losses)))
    told = data.draw(st.integers(at, len(losses)))
    course = Course()
    said = heard(course, losses[:told])
    resumed = Course.resumed(at, course.mark(at), ())
    said += heard(course, losses[told:], told)
    assert heard(resumed, losses[at:], at) == said[at:]


def test_from_another_checkpoint_the_averages_stay_and_the_newest_steps_do_not_follow_on():
    course = Course()
    heard(course, [5.0] * WINDOW + [2.0] * WINDOW)
    resumed = Course.resumed(8, course.mark(16), ())
    said = heard(resumed, [9.0] * WINDOW, 8)
    assert said[:-1] == [None] * (WINDOW - 1)
    assert said[-1].endswith("above 5.00 at its beginning and more than 2 x its lowest 2.00")


def test_a_checkpoint_told_after_more_steps_than_are_remembered_has_no_mark():
    course = Course()
    heard(course, [1.0] * (HISTORY + 9))
    assert course.mark(9) is None
    assert course.mark(10).newest == (1.0,) * WINDOW


def test_without_a_mark_the_losses_that_were_kept_set_its_beginning():
    mark = Course.resumed(16, None, [5.0] * WINDOW + [2.0] * WINDOW).mark(16)
    assert (mark.first, mark.lowest, mark.newest) == (5.0, 2.0, ())


def test_who_begins_anew_has_no_past():
    old = Course()
    heard(old, [1.0] * WINDOW)
    assert Course.resumed(0, old.mark(8), [1.0] * WINDOW).mark(0) == Course().mark(0)
