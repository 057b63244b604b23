"""Killed with SIGKILL at random moments and started again, a run ends where it would have ended."""

import multiprocessing
import random
import time

import pytest
import torch
import warm as warm_processes
from safetensors.torch import load_file
from tiny_job import make_world, spec_of

from jobs.checkpoint import WEIGHTS
from jobs.events import TERMINAL, Checkpointed, Failed, Finished, Started
from jobs.launch import run_local
from jobs.place import Place
from jobs.run import run_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("warm"),
]
warm = warm_processes.warm
SAMPLES, EVERY = 240, 8


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Noise in MoCa draws random numbers at every step, so a wrong random state would show."""
    base = make_world(tmp_path_factory.mktemp("world"))
    return spec_of(
        base,
        model={"moca": {"kind": "noise", "init_std": 0.1}},
        optim={"samples": SAMPLES},
        checkpoint={"every_samples": EVERY},
        score={"every_samples": 40},
    )


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    """The weights of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    run_to_the_end(job, folder)
    return weights_of(folder)


def weights_of(folder, samples=SAMPLES):
    return load_file(folder / "checkpoints" / f"samples-{samples:012d}" / WEIGHTS)


def run_in_a_process(job, folder, told):
    for event in run_job(job, Place(folder=folder)):
        told.put(event)


def run_to_the_end(job, folder):
    """Where the run began, in a process of its own: DeepSpeed's ZeRO-3, which other tests ran in
    this one, has put another function in the place of `linear` for good, and that rounds anew."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=run_in_a_process, args=(job, folder, told), daemon=True)
    process.start()
    events = [told.get(timeout=120)]
    while not isinstance(events[-1], TERMINAL):
        events.append(told.get(timeout=120))
    process.join()
    assert isinstance(events[-1], Finished)
    return events[0].resumed_samples


def killed_after(job, folder, checkpoints, delay_s):
    """Run in a process of its own until so many checkpoints are told, and kill it a bit later."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue(1)  # the run cannot go on further than it was heard
    process = context.Process(target=run_in_a_process, args=(job, folder, told), daemon=True)
    process.start()
    resumed, left = 0, checkpoints
    while left:
        event = told.get(timeout=120)
        assert not isinstance(event, Finished), "the run must be killed before its end"
        resumed = event.resumed_samples if isinstance(event, Started) else resumed
        left -= isinstance(event, Checkpointed)
    time.sleep(delay_s)
    process.kill()
    process.join()
    return resumed


def test_the_weights_are_those_of_an_uninterrupted_run_bit_for_bit(job, whole, tmp_path):
    chance = random.Random(20241007)
    resumed = [
        killed_after(job, tmp_path, chance.randint(1, 4), chance.uniform(0, 0.02)) for _ in range(3)
    ]
    assert resumed == sorted(resumed)
    assert resumed[0] == 0 < resumed[-1]
    assert run_to_the_end(job, tmp_path) > resumed[-1]
    again = weights_of(tmp_path)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def two_ranks_killed_after(job, folder, checkpoints, rank):
    """Run on two ranks until so many checkpoints are told, and kill one rank; where they began."""
    events, left = [], checkpoints

    def kill(event):
        nonlocal left
        events.append(event)
        left -= isinstance(event, Checkpointed)
        if left == 0:
            left = -1
            ranks = sorted(multiprocessing.active_children(), key=lambda one: one.pid)
            ranks[rank].kill()

    last = run_local(job, 2, folder, kill)
    assert isinstance(last, Failed) and last.kind == "worker-lost", last
    return events[0].resumed_samples


def test_at_another_number_of_ranks_they_agree_to_rounding(job, tmp_path):
    """One rank is killed, two go on and one of them is killed, one goes on to the end."""
    still = job.model_copy(update={"model": job.model.model_copy(update={"moca": None})})
    run_to_the_end(still, tmp_path / "whole")
    killed_after(still, tmp_path / "parts", 2, 0.01)
    on_two = two_ranks_killed_after(still, tmp_path / "parts", 3, rank=1)
    assert on_two >= 2 * EVERY
    assert run_to_the_end(still, tmp_path / "parts") >= on_two + 3 * EVERY
    one, two = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("stage", "killed"), [(0, [0, 1]), (2, [1]), (3, [0])])
def test_two_ranks_of_which_one_is_killed_end_bit_for_bit_as_if_it_were_not(
    job, tmp_path, stage, killed
):
    """Whichever rank it is; the other is ended, and the next attempt goes on from a checkpoint."""
    samples = SAMPLES // 2 * len(killed)
    engine, optim = {"zero_stage": stage}, {"samples": samples}
    two = spec_of(job.to_json(), deepspeed=engine, optim=optim)
    assert isinstance(run_local(two, 2, tmp_path / "whole", lambda _: None), Finished)
    chance = random.Random(stage)
    for rank in killed:
        two_ranks_killed_after(two, tmp_path / "parts", chance.randint(2, 6), rank)
    events = []
    last = run_local(two, 2, tmp_path / "parts", events.append)
    assert isinstance(last, Finished), last
    assert events[0].resumed_samples >= 2 * EVERY
    whole, parts = (weights_of(tmp_path / name, samples) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
