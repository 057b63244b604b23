"""What a user reads when a rank breaks outside its job."""

from __future__ import annotations

import ray.exceptions

from orchestrator.executors.ray_executor import _first_line


def test_the_reason_is_what_the_rank_raised_not_where_ray_ran_it():
    cause = TypeError("Place.__init__() got an unexpected keyword argument\nand a second line")
    error = ray.exceptions.RayTaskError("Rank.run", "Traceback ...", cause)
    told = _first_line(error.as_instanceof_cause())
    assert told == "TypeError: Place.__init__() got an unexpected keyword argument"
    assert "Place" not in str(error.as_instanceof_cause()).splitlines()[0]  # hence _first_line


def test_an_error_without_words_is_named():
    assert _first_line(KeyError()) == "KeyError"
