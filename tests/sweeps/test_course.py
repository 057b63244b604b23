"""A resumed trial's training loss has the course that it would have had without interruption."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeps.course import WINDOW, Course

LOSSES = st.lists(st.floats(0.1, 9.9) | st.just(float("nan")), min_size=1, max_size=60)


@given(LOSSES, st.data())
def test_resumed_at_its_newest_checkpoint_it_says_the_same_of_every_later_step(losses, data):
    at = data.draw(st.integers(1, len(losses)))
    course = Course()
    for loss in losses[:at]:
        course.hear(loss, 2.0)
    resumed = Course.resumed(at, course.mark(at), ())
    assert [resumed.hear(x, 2.0) for x in losses[at:]] == [course.hear(x, 2.0) for x in losses[at:]]


def test_from_another_checkpoint_the_averages_stay_and_the_newest_steps_do_not_follow_on():
    course = Course()
    for loss in [5.0] * WINDOW + [2.0] * WINDOW:
        course.hear(loss, 2.0)
    resumed = Course.resumed(8, course.mark(16), ())
    said = [resumed.hear(9.0, 2.0) for _ in range(WINDOW)]
    assert said[:-1] == [None] * (WINDOW - 1)
    assert said[-1].endswith("above 5.00 at its beginning and more than 2 x its lowest 2.00")


def test_without_a_mark_the_losses_that_were_kept_set_its_beginning():
    resumed = Course.resumed(16, None, [5.0] * WINDOW + [2.0] * WINDOW)
    assert resumed.mark(16).first == 5.0
    assert resumed.mark(16).lowest == 2.0


def test_who_begins_anew_has_no_past():
    old = Course()
    for _ in range(WINDOW):
        old.hear(1.0, 2.0)
    assert Course.resumed(0, old.mark(8), [1.0] * WINDOW).mark(0) == Course().mark(0)
