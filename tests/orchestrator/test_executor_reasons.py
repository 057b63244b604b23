"""What a user reads when a rank or its supervision breaks outside its job."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ray.exceptions
from executor_jobs import collect, launch, terminal

from jobs.events import Failed, Stopped
from mir.errors import ClusterError
from orchestrator.executors import ray_executor
from orchestrator.executors.attempt import Attempt, Patience
from orchestrator.executors.outcome import first_line
from orchestrator.executors.ray_executor import RayExecutor
from sweeps.spec import ResourceSpec


@pytest.fixture
def executor(monkeypatch):
    """One whose Ray is never reached: what it conducts is up to the test."""
    monkeypatch.setattr(ray_executor.ray, "is_initialized", lambda: True)
    return RayExecutor(spare_s=0.0)


def test_the_reason_is_what_the_rank_raised_not_where_ray_ran_it():
    cause = TypeError("Place.__init__() got an unexpected keyword argument\nand a second line")
    error = ray.exceptions.RayTaskError("Rank.run", "Traceback ...", cause)
    told = first_line(error.as_instanceof_cause())
    assert told == "TypeError: Place.__init__() got an unexpected keyword argument"
    assert "Place" not in str(error.as_instanceof_cause()).splitlines()[0]  # hence first_line


def test_an_error_without_words_is_named():
    assert first_line(KeyError()) == "KeyError"


class Gang:
    """A gang without processes."""

    ranks, resources = (), ResourceSpec()

    def __init__(self, *nodes):
        self.nodes = nodes

    def free(self):
        pass


def raises(error, *nodes):
    def conduct(job):
        job.gang = Gang(*nodes)
        raise error

    return conduct


def ray_is_gone():
    raise ConnectionError("Ray is gone")


def last_word(executor, conduct, monkeypatch, folder):
    monkeypatch.setattr(executor, "_conduct", conduct)
    executor.start(launch(folder))
    last = collect(executor, terminal, seconds=10.0)[-1].event
    assert not executor._jobs
    return last


RAISED = ray.exceptions.RayTaskError("Rank.run", "Traceback", TypeError("no such argument"))
NEVER_STOOD = ray.exceptions.RayActorError(
    error_msg="it died\nImportError: no Rank", actor_init_failed=True
)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (KeyError("node"), "worker-lost", "KeyError: 'node'"),
        (ConnectionError("Ray is gone"), "worker-lost", "ConnectionError: Ray is gone"),
        (ray.exceptions.RaySystemError("broken"), "worker-lost", "RaySystemError: System error:"),
        (ClusterError("a rank sent what"), "error", "ClusterError: a rank sent what"),
        (RAISED.as_instanceof_cause(), "error", "TypeError: no such argument"),
    ],
)
def test_what_breaks_a_supervision_is_not_the_trial_s_fault_but_what_no_restart_mends_is(
    executor, error, kind, reason, monkeypatch, tmp_path
):
    last = last_word(executor, raises(error), monkeypatch, tmp_path)
    assert isinstance(last, Failed)
    assert (last.kind, last.reason[: len(reason)]) == (kind, reason)
    assert "Traceback" in last.detail


def test_the_last_word_comes_though_ray_does_not_even_say_which_nodes_it_has(
    executor, monkeypatch, tmp_path
):
    monkeypatch.setattr(ray_executor, "_alive", ray_is_gone)
    last = last_word(executor, raises(NEVER_STOOD, "a"), monkeypatch, tmp_path)
    assert last.kind == "worker-lost"
    assert last.reason.startswith("a rank could not begin: ImportError: no Rank")


def test_a_gang_that_cannot_be_freed_still_ends_its_attempt(
    executor, monkeypatch, tmp_path, caplog
):
    class Stuck(Gang):
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


def test_any_job_that_leaves_in_order_says_that_its_nodes_are_well(executor, monkeypatch, tmp_path):
    def conduct(job):
        job.gang, job.left_in_order = Gang("a"), True
        return Stopped(samples=8, reason="worse than the median")

    executor._losses.lost(7, ["a", "b"])
    last_word(executor, conduct, monkeypatch, tmp_path)
    assert len(executor._losses) == 1


def test_a_group_that_was_pending_before_its_node_turned_sick_is_asked_for_anew(
    executor, monkeypatch, tmp_path
):
    class Pending:
        looks = 0

        def wait(self, _seconds):
            self.looks += 1
            assert self.looks < 5, "it would be placed on a sick node"
            for trial in (7, 8):
                executor._losses.lost(trial, ["a"])
            return False

    nodes = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
    monkeypatch.setattr(ray_executor, "_alive", lambda: nodes)
    monkeypatch.setattr(ray_executor, "available_resources_per_node", dict)
    job = Attempt(launch=launch(tmp_path))
    assert not executor._granted(Pending(), job, frozenset(), Patience(lambda _: None))
    assert executor._shunned(job.launch) == {"a"}


PLAIN = {"CPU": 2.0}


@pytest.mark.parametrize(
    ("others", "workers", "last", "kind"),
    [
        ({}, 1, False, "error"),
        ({"head": {"CPU": 0.0}}, 1, False, "error"),
        ({"small": {"CPU": 1.0}}, 2, False, "error"),
        ({"b": PLAIN}, 2, False, "worker-lost"),
        ({"b": PLAIN}, 2, True, "error"),
    ],
)
def test_ranks_that_cannot_begin_are_lost_where_another_attempt_may_come_elsewhere(
    executor, others, workers, last, kind, monkeypatch, tmp_path
):
    monkeypatch.setattr(ray_executor, "_alive", lambda: {"a": PLAIN, **others})
    monkeypatch.setattr(executor, "_conduct", raises(NEVER_STOOD, *"a" * workers))
    gang = ResourceSpec(workers=workers, spread="strict-pack")
    executor.start(replace(launch(tmp_path), resources=gang, last=last))
    assert collect(executor, terminal, seconds=10.0)[-1].event.kind == kind
