"""Both executors under one contract, and what Ray alone must do with processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import small_world
from small_world import SAMPLES, FakeJobs, make_sweep

from jobs.events import TERMINAL, Failed, Finished, Scored, Started, Step, Stopped
from mir.errors import ClusterError
from orchestrator.executors.inline import InlineExecutor
from orchestrator.ports import Capacity, Launch
from sweeps.spec import ResourceSpec

JOB = make_sweep().base


def slow(spec, place):
    """A job that runs until it is stopped; its first event carries every rank's process id."""
    yield Started(ranks=place.world_size, device=place.device, trainable={"pid": os.getpid()})
    (place.folder / f"rank{place.rank}").write_text(f"{place.local_rank} {os.environ.get('RANK')}")
    (place.folder / f"pid{place.rank}").write_text(str(os.getpid()))
    for n in range(1, 3000):
        yield Step(samples=n, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)
        if place.stop_requested():
            yield Stopped(samples=n, reason=place.stop_requested())
            return
        time.sleep(0.01)
    yield Finished(samples=3000, seconds=1.0)


def deaf(spec, place):
    """A job that does not listen to anybody."""
    yield Started(ranks=1, device="cpu", trainable={"pid": os.getpid()})
    while True:
        time.sleep(0.01)
        yield Step(samples=1, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)


def quick(spec, place):
    """A whole job in no time."""
    return FakeJobs()(spec, place)


def raising(spec, place):
    """A job with a mistake, after its first event."""
    yield Started(ranks=1, device="cpu", trainable={})
    raise KeyError("oops")


def silent(spec, place):
    """A job that ends without a last word."""
    yield Started(ranks=1, device="cpu", trainable={})


def second_rank_fails(spec, place):
    """Rank 1 runs out of memory; rank 0 would wait for it for ever."""
    yield Started(ranks=2, device="cpu", trainable={})
    if place.rank == 1:
        yield Failed(kind="out-of-memory", reason="rank 1 is full")
        return
    while True:
        time.sleep(0.01)


def hoarding(spec, place):
    """A job that leaves 400 MiB behind."""
    import builtins

    yield Started(ranks=1, device="cpu", trainable={"pid": os.getpid()})
    kept = builtins.__dict__.setdefault("hoarded", [])
    kept.append(bytearray(os.urandom(1)) * (400 * 2**20))
    yield Finished(samples=1, seconds=0.0)


def on_a_full_disk(spec, place):
    """A job whose first score finds no space: /dev/full says so to whoever writes to it."""
    for event in FakeJobs()(spec, place):
        yield event
        if isinstance(event, Started):
            (place.folder / "scores.jsonl").unlink(missing_ok=True)
            (place.folder / "scores.jsonl").symlink_to("/dev/full")


JOBS = (slow, deaf, quick, raising, silent, second_rank_fails, hoarding, on_a_full_disk)
RUNNERS = {f.__name__: f for f in JOBS}


def inline(name, **options):
    return InlineExecutor(RUNNERS[name], slots=2, nodes=((2.0, 0.0),))


def under_ray(name, **options):
    from orchestrator.executors.ray_executor import RayExecutor

    return RayExecutor(runner=RUNNERS[name], **options)


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for all tests of this file."""
    from orchestrator.executors.ray_executor import RayExecutor

    from ray import cloudpickle  # isort: skip - the executor sets how ray is imported

    # The processes of a job cannot import test modules.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cloudpickle.register_pickle_by_value(small_world)
    owner = RayExecutor(num_cpus=2)
    yield
    owner.close()


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def make(request):
    if request.param == "ray":
        request.getfixturevalue("local_ray")
        return under_ray
    return inline


def launch(folder: Path, trial: int = 0, workers: int = 1, attempt: int = 1) -> Launch:
    return Launch(
        trial=trial,
        attempt=attempt,
        spec=JOB,
        resources=ResourceSpec(workers=workers),
        folder=folder / f"{trial:04d}",
    )


def collect(executor, until, seconds=60.0):
    """Everything said until `until(event)` is true of the newest event."""
    heard, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        for said in executor.wait(0.2):
            heard.append(said)
            if until(said.event):
                return heard
    raise AssertionError(f"nothing of that kind came; heard {heard[-3:]}")


def terminal(event):
    return isinstance(event, TERMINAL)


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
    executor.stop(0, "MIR 3 against 2")
    executor.stop(0, "said twice")
    last = collect(executor, terminal)[-1].event
    assert isinstance(last, Stopped)
    assert last.reason == "MIR 3 against 2"
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


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return False


def assert_gone(pids, seconds=10.0):
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
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
def test_a_failed_job_leaves_no_process_to_the_next(local_ray, tmp_path):
    executor = under_ray("raising")
    executor.start(launch(tmp_path))
    collect(executor, terminal)
    assert_free(seconds=5.0)


@pytest.mark.ray
def test_a_deaf_job_is_killed_after_its_grace(local_ray, tmp_path):
    executor = under_ray("deaf", grace_s=0.5)
    executor.start(launch(tmp_path))
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


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:http"])
def test_no_cluster_at_the_address_is_one_line(address, monkeypatch):
    from orchestrator.executors import ray_executor

    monkeypatch.setattr(ray_executor.ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=f"no Ray at '{address}'") as refusal:
        ray_executor.RayExecutor(address=address)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2
