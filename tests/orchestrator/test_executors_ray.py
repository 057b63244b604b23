"""What Ray alone must do with processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import executor_jobs
import pytest
from executor_jobs import (
    BrokenRank,
    collect,
    launch,
    quick,
    terminal,
    under_ray,
)
from left_behind import gone

from jobs.events import Failed, Started, Step, Stopped

local_ray = executor_jobs.local_ray


def assert_gone(pids, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, "processes are still there"
        time.sleep(0.02)


def assert_free(seconds=10.0):
    import ray

    deadline = time.monotonic() + seconds
    while ray.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < deadline, f"still held: {ray.available_resources()}"
        time.sleep(0.02)
    groups = ray.util.placement_group_table().values()
    assert {group["state"] for group in groups} <= {"REMOVED"}


def pids(folder: Path, ranks: int) -> list[int]:
    """The ranks' processes, once all of them are at work."""
    files = [folder / "0000" / f"pid{rank}" for rank in range(ranks)]
    deadline = time.monotonic() + 30.0
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline, "not all ranks have begun"
        time.sleep(0.02)
    return [int(file.read_text()) for file in files]


@pytest.mark.ray
def test_capacity_is_the_clusters(local_ray):
    assert under_ray("quick").capacity().nodes == ((2.0, 0.0),)


@pytest.mark.ray
def test_a_stopped_gang_frees_its_processes_and_its_place(local_ray, tmp_path):
    executor = under_ray("slow")
    executor.start(launch(tmp_path, workers=2))
    collect(executor, lambda event: isinstance(event, Step) and event.samples > 3)
    processes = pids(tmp_path, 2)
    assert len({os.getpid(), *processes}) == 3
    assert (tmp_path / "0000" / "rank1").read_text() == "1 1"
    executor.stop(0, "enough")
    assert isinstance(collect(executor, terminal)[-1].event, Stopped)
    assert_gone(processes)
    assert_free()


@pytest.mark.ray
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_a_lost_worker_and_takes_the_others_along(local_ray, tmp_path, rank):
    executor = under_ray("slow")
    executor.start(launch(tmp_path, workers=2))
    collect(executor, lambda event: isinstance(event, Step) and event.samples > 3)
    processes = pids(tmp_path, 2)
    os.kill(processes[rank], signal.SIGKILL)
    last = collect(executor, terminal)[-1].event
    assert isinstance(last, Failed)
    assert last.kind == "worker-lost"
    assert_gone(processes)
    assert_free()


@pytest.mark.ray
def test_what_ray_says_of_a_lost_process_is_not_among_the_sweeps_own_lines(local_ray, capsys):
    """On standard output it would stand between lines of JSON; the reason is in the event."""
    from ray._private.worker import print_to_stdstream

    said = {"lines": ["A worker died or was killed"], "pid": "raylet", "is_err": False}
    print_to_stdstream(said, ignore_prefix=False)
    assert capsys.readouterr().out == ""


@pytest.mark.ray
def test_the_rank_that_failed_is_the_cause(local_ray, tmp_path):
    executor = under_ray("second_rank_fails")
    executor.start(launch(tmp_path, workers=2))
    last = collect(executor, terminal)[-1].event
    assert (last.kind, last.reason) == ("out-of-memory", "rank 1 is full")
    assert_free()


@pytest.mark.ray
def test_a_process_serves_the_next_small_job_and_then_ends(local_ray, tmp_path):
    executor = under_ray("slow", spare_s=0.5)
    processes = []
    for trial in range(2):
        executor.start(launch(tmp_path, trial))
        started = collect(executor, lambda event: isinstance(event, Started))[-1].event
        processes.append(started.trainable["pid"])
        # A stop is for one job only, not for the next one in the same process.
        executor.stop(trial, f"enough of {trial}")
        assert collect(executor, terminal)[-1].event.reason == f"enough of {trial}"
    assert processes[0] == processes[1]
    time.sleep(0.5)
    executor.wait(0.0)
    assert_gone(processes)
    assert_free()


@pytest.mark.ray
def test_a_process_that_jobs_have_left_much_memory_in_serves_no_other(local_ray, tmp_path):
    executor = under_ray("hoarding", spare_s=30.0)
    processes = []
    for trial in range(3):
        executor.start(launch(tmp_path, trial))
        started = collect(executor, lambda event: isinstance(event, Started))[-1].event
        processes.append(started.trainable["pid"])
        collect(executor, terminal)
    executor.close()
    # The first job's memory is what a process needs; the second's has come on top.
    assert processes[0] == processes[1] != processes[2]
    assert_gone(processes)


@pytest.mark.ray
def test_a_node_with_another_mirsweep_is_named_as_the_cause(local_ray, tmp_path):
    class Later(Step):
        more: int = 1

    def of_another_version(spec, place):
        yield Later(samples=1, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)

    from orchestrator.executors.ray_executor import RayExecutor

    executor = RayExecutor(runner=of_another_version)
    executor.start(launch(tmp_path))
    last = collect(executor, terminal)[-1].event
    assert last.kind == "error"
    assert "step.more" in last.reason
    assert "the same version of mirsweep" in last.reason
    assert_free()


@pytest.mark.ray
def test_a_node_that_dies_as_a_job_is_placed_on_it_is_a_lost_worker(
    local_ray, monkeypatch, tmp_path
):
    from orchestrator.executors import ray_executor

    # What Ray says of a group whose node has just died.
    nowhere = {"bundles_to_node_id": {0: ""}, "state": "RESCHEDULING"}
    monkeypatch.setattr(ray_executor, "placement_group_table", lambda _: nowhere)
    executor = under_ray("quick")
    executor.start(launch(tmp_path))
    last = collect(executor, terminal)[-1].event
    assert isinstance(last, Failed)
    assert last.kind == "worker-lost"
    assert_free()


@pytest.mark.ray
def test_a_failed_job_leaves_no_process_to_the_next(local_ray, tmp_path):
    executor = under_ray("raising")
    executor.start(launch(tmp_path))
    collect(executor, terminal)
    assert_free(seconds=5.0)


@pytest.mark.ray
def test_ranks_that_cannot_begin_say_why(local_ray, tmp_path, monkeypatch):
    from orchestrator.executors import ray_executor

    monkeypatch.setattr(ray_executor, "Rank", BrokenRank)
    executor = under_ray("quick")
    executor.start(launch(tmp_path))
    last = collect(executor, terminal)[-1].event
    assert (last.kind, last.reason) == (
        "error",  # no other node to try
        "a rank could not begin: ImportError: cannot import name 'Rank' from 'orchestrator'. "
        "Install the same mirsweep on every node",
    )
    assert_free()


@pytest.mark.ray
def test_a_deaf_job_is_killed_after_its_grace(local_ray, tmp_path):
    executor = under_ray("deaf")
    executor.start(launch(tmp_path, grace=0.5))
    started = collect(executor, lambda event: isinstance(event, Started))[0].event
    executor.stop(0, "enough")
    last = collect(executor, terminal)[-1].event
    assert last.kind == "worker-lost"
    assert "enough" in last.reason
    assert_gone([started.trainable["pid"]])
    assert_free()


@pytest.mark.ray
def test_a_job_that_waits_for_room_can_be_stopped(local_ray, tmp_path):
    executor = under_ray("slow")
    executor.start(launch(tmp_path, 0, workers=2))
    collect(executor, lambda event: isinstance(event, Step))
    executor.start(launch(tmp_path, 1, workers=1))
    executor.stop(1, "not needed any more")
    last = collect(executor, terminal)[-1]
    assert (last.trial, last.event.reason) == (1, "not needed any more")
    executor.close()
    assert_free()


@pytest.mark.ray
def test_what_a_rank_prints_is_in_the_trials_folder(local_ray, tmp_path):
    def chatty(spec, place):
        print("hello from the rank")
        yield from quick(spec, place)

    from orchestrator.executors.ray_executor import RayExecutor

    executor = RayExecutor(runner=chatty)
    executor.start(launch(tmp_path))
    collect(executor, terminal)
    assert "hello from the rank" in (tmp_path / "0000" / "rank0.log").read_text()
