"""Both executors under one contract."""

from __future__ import annotations

import os
import sys

import executor_jobs
import pytest
from executor_jobs import (
    RUNNERS,
    collect,
    inline,
    launch,
    terminal,
    under_ray,
)
from small_world import SAMPLES

from jobs.events import Failed, Finished, Scored, Started, Step, Stopped
from jobs.place import Dismissal
from mir.errors import ClusterError
from orchestrator.executors.inline import InlineExecutor
from orchestrator.ports import Capacity

local_ray = executor_jobs.local_ray


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def make(request):
    if request.param == "ray":
        request.getfixturevalue("local_ray")
        return under_ray
    return inline


def test_a_disk_that_does_not_take_a_score_fails_the_job_not_the_controller(make, tmp_path):
    executor = make("on_a_full_disk")
    executor.start(launch(tmp_path))
    last = collect(executor, terminal)[-1].event
    assert isinstance(last, Failed), last
    assert last.kind == "disk-full", last


def test_a_job_is_heard_in_order_and_ends_once(make, tmp_path):
    executor = make("quick")
    executor.start(launch(tmp_path))
    heard = collect(executor, terminal)
    assert isinstance(heard[0].event, Started)
    assert isinstance(heard[-1].event, Finished)
    assert [s.event.samples for s in heard if isinstance(s.event, Scored)] == [0, 16, 32, 48, 64]
    assert {(s.trial, s.attempt) for s in heard} == {(0, 1)}
    assert not executor.wait(0.1)
    executor.close()


def test_two_jobs_at_once_keep_apart(make, tmp_path):
    executor = make("quick")
    executor.start(launch(tmp_path, 0))
    executor.start(launch(tmp_path, 1, attempt=3))
    heard = collect(executor, terminal)
    heard += collect(executor, terminal)
    for trial, attempt in ((0, 1), (1, 3)):
        mine = [s for s in heard if s.trial == trial]
        assert {s.attempt for s in mine} == {attempt}
        assert isinstance(mine[-1].event, Finished)
        steps = [s.event.samples for s in mine if isinstance(s.event, Step)]
        assert steps == sorted(steps)
        assert steps[-1] == SAMPLES
    executor.close()


def test_a_job_leaves_softly_with_the_reason(make, tmp_path):
    executor = make("slow")
    executor.start(launch(tmp_path))
    collect(executor, lambda event: isinstance(event, Step))
    executor.stop(0, Dismissal("MIR 3 against 2"))
    executor.stop(0, "said twice")
    last = collect(executor, terminal)[-1].event
    assert isinstance(last, Stopped)
    assert last.reason == "MIR 3 against 2"
    assert (tmp_path / "0000" / "how").read_text() == "Dismissal"
    executor.stop(0, "too late")
    executor.stop(99, "never started")
    executor.close()


@pytest.mark.parametrize(("name", "words"), [("raising", "oops"), ("silent", "without saying how")])
def test_whatever_a_runner_does_there_is_one_last_word(make, tmp_path, name, words):
    executor = make(name)
    executor.start(launch(tmp_path))
    last = collect(executor, terminal)[-1].event
    assert isinstance(last, Failed)
    assert last.kind == "error"
    assert words in last.reason
    executor.close()


def test_a_resumed_job_goes_on_from_its_checkpoint(make, tmp_path):
    executor = make("quick")
    executor.start(launch(tmp_path))
    first = plain(collect(executor, terminal))
    (tmp_path / "0000" / "checkpoint.json").write_text("32")
    with (tmp_path / "0000" / "scores.jsonl").open("a") as file:
        file.write('{"event": "sco')  # killed while writing
    executor.start(launch(tmp_path, attempt=2))
    heard = collect(executor, terminal)
    assert heard[0].event.resumed_samples == 32
    # The scores before the checkpoint are said again: the controller may not have heard them.
    assert plain(heard[1:4]) == first[:3]
    assert plain(heard) == first
    executor.start(launch(tmp_path, attempt=3))
    assert plain(collect(executor, terminal)) == first
    executor.close()


def plain(heard):
    """The scores among what was heard, as JSON."""
    return [said.event.model_dump_json() for said in heard if isinstance(said.event, Scored)]


def test_closing_twice_is_safe_and_nothing_is_heard_afterwards(make, tmp_path):
    executor = make("slow")
    executor.start(launch(tmp_path))
    collect(executor, lambda event: isinstance(event, Step))
    executor.close()
    executor.close()
    assert not [s for s in executor.wait(0.0) if isinstance(s.event, Finished | Stopped)]


def test_inline_capacity_is_one_job_by_default():
    executor = InlineExecutor(RUNNERS["quick"])
    assert executor.capacity() == Capacity(nodes=((float(os.cpu_count()), 0.0),), max_jobs=1)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:http"])
def test_no_cluster_at_the_address_is_one_line(address, monkeypatch):
    from orchestrator.executors import ray_executor

    monkeypatch.setattr(ray_executor.ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=f"no Ray at '{address}'") as refusal:
        ray_executor.RayExecutor(address=address)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_what_ray_prints_is_the_users_own_again_once_the_executor_has_left(monkeypatch, capsys):
    from orchestrator.executors import ray_executor

    from ray._private import worker  # isort: skip - the executor sets how ray is imported

    def prints():
        said = {"lines": ["A worker died"], "pid": "raylet", "is_err": False}
        worker.print_worker_logs(said, sys.stdout)
        return capsys.readouterr().out != ""

    monkeypatch.setattr(worker, "_worker_logs_enabled", True)
    for name in ("is_initialized", "init", "shutdown"):
        monkeypatch.setattr(ray_executor.ray, name, lambda **_: False)
    executor = ray_executor.RayExecutor()
    assert not prints()
    executor.close()
    assert prints()
    with pytest.raises(ClusterError, match="no Ray at"):
        ray_executor.RayExecutor("127.0.0.1:1")
    assert prints()
