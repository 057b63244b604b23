"""What a user reads when a rank or its supervision breaks outside its job."""

from __future__ import annotations

import pytest
import ray.exceptions
from executor_jobs import collect, launch, terminal

from jobs.events import Failed, event_from_json
from orchestrator.executors import ray_executor
from orchestrator.executors.ray_executor import RayExecutor, _first_line


@pytest.fixture
def executor(monkeypatch):
    """One whose Ray is never reached: what it conducts is up to the test."""
    monkeypatch.setattr(ray_executor.ray, "is_initialized", lambda: True)
    return RayExecutor(spare_s=0.0)


def test_the_reason_is_what_the_rank_raised_not_where_ray_ran_it():
    cause = TypeError("Place.__init__() got an unexpected keyword argument\nand a second line")
    error = ray.exceptions.RayTaskError("Rank.run", "Traceback ...", cause)
    told = _first_line(error.as_instanceof_cause())
    assert told == "TypeError: Place.__init__() got an unexpected keyword argument"
    assert "Place" not in str(error.as_instanceof_cause()).splitlines()[0]  # hence _first_line


def test_an_error_without_words_is_named():
    assert _first_line(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("conduct", "words"),
    [
        (lambda _: event_from_json({"event": "step", "samples": 1, "pace": 2}), "ValidationError"),
        (lambda _: {}["node"], "KeyError: 'node'"),
    ],
)
def test_whatever_breaks_a_supervision_there_is_one_last_word(
    executor, conduct, words, monkeypatch, tmp_path
):
    monkeypatch.setattr(executor, "_conduct", conduct)
    executor.start(launch(tmp_path))
    last = collect(executor, terminal, seconds=10.0)[-1].event
    assert isinstance(last, Failed)
    assert (last.kind, last.reason[: len(words)]) == ("error", words)
    assert "Traceback" in last.detail
    assert not executor._jobs


def test_a_gang_that_cannot_be_freed_still_ends_its_attempt(
    executor, monkeypatch, tmp_path, caplog
):
    class Stuck:
        ranks, nodes = (), ()

        def free(self):
            raise ConnectionError("Ray is gone")

    def conduct(job):
        job.gang = Stuck()
        return Failed(kind="worker-lost", reason="killed")

    monkeypatch.setattr(executor, "_conduct", conduct)
    executor.start(launch(tmp_path))
    last = collect(executor, terminal, seconds=10.0)[-1].event
    assert last == Failed(kind="worker-lost", reason="killed")
    assert not executor._jobs
    assert "Ray is gone" in caplog.text
