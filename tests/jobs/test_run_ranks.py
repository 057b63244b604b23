"""Two ranks give what one gives, in processes of their own."""

import multiprocessing
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny_job import make_world, spec_of

from jobs.checkpoint import WEIGHTS
from jobs.events import Checkpointed, Failed, Finished, Scored, Stopped
from jobs.launch import run_local
from jobs.place import Place
from jobs.run import run_job

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def run(spec, workers, folder):
    events = []
    last = run_local(spec, workers, folder, events.append)
    assert events[-1] == last
    return last, events


def last_weights(folder):
    newest = max((folder / "checkpoints").glob("samples-*"))
    return load_file(newest / WEIGHTS)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_ranks_equal_one(base, tmp_path, stage):
    # 7 pairs and 5 validation samples: one rank has one more than the other.
    spec = spec_of(
        base,
        deepspeed={"zero_stage": stage},
        model={"moca": {"init_std": 0.02}},
        score={"pairs": 7, "batch_size": 2},
        data={"validation_samples": 5},
    )
    one, alone = run(spec, 1, tmp_path / "one")
    two, shared = run(spec, 2, tmp_path / "two")
    assert isinstance(one, Finished) and isinstance(two, Finished), two
    # Summing gradients in another order differs in the last bits; 24 samples make little of it.
    a, b = last_weights(tmp_path / "one"), last_weights(tmp_path / "two")
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=1e-5, rtol=0)
    scores = [[e for e in events if isinstance(e, Scored)] for events in (alone, shared)]
    assert len(scores[0]) == len(scores[1]) == 4
    for left, right in zip(*scores, strict=True):
        assert right.samples == left.samples
        assert right.report.fingerprint == left.report.fingerprint
        assert right.mir["mir"] == pytest.approx(left.mir["mir"], abs=1e-4)
        assert right.guard.gap == pytest.approx(left.guard.gap, abs=1e-5)
        assert right.guard.gap_error == pytest.approx(left.guard.gap_error, abs=1e-5)


def test_a_checkpoint_of_two_ranks_is_resumed_by_one_at_another_stage(base, tmp_path):
    whole, _ = run(spec_of(base), 1, tmp_path / "whole")
    half = spec_of(base, deepspeed={"zero_stage": 2, "micro_batch": 1})
    last, _ = run(half, 2, tmp_path / "parts")
    assert isinstance(last, Finished)
    for extra in sorted((tmp_path / "parts" / "checkpoints").glob("samples-*"))[1:]:
        extra.rename(tmp_path / extra.name)
    last, events = run(spec_of(base, deepspeed={"zero_stage": 3}), 1, tmp_path / "parts")
    assert events[0].resumed_samples == 16
    assert isinstance(whole, Finished) and isinstance(last, Finished)
    a, b = last_weights(tmp_path / "whole"), last_weights(tmp_path / "parts")
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=1e-5, rtol=0)


def test_an_error_on_any_rank_ends_the_gang(base, tmp_path):
    last, _ = run(spec_of(base, optim={"global_batch": 5}), 2, tmp_path)
    assert isinstance(last, Failed)
    assert last.kind == "bad-configuration"
    assert "optim.global_batch: 5" in last.reason


def test_a_killed_rank_is_told_as_lost_and_the_run_goes_on_from_its_checkpoint(base, tmp_path):
    spec = spec_of(base, optim={"samples": 4000}, score={"every_samples": 2000})
    events = []

    def kill_a_rank(event):
        events.append(event)
        if isinstance(event, Checkpointed) and event.samples == 16:
            multiprocessing.active_children()[-1].kill()

    last = run_local(spec, 2, tmp_path, kill_a_rank)
    assert isinstance(last, Failed)
    assert last.kind == "worker-lost", last
    assert multiprocessing.active_children() == []
    polls = iter(range(100))
    place = Place(folder=tmp_path, stop_requested=lambda: "enough" if next(polls) == 1 else None)
    again = list(run_job(spec, place))
    assert again[0].resumed_samples >= 16


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_softly_after_a_checkpoint(base, tmp_path, number):
    events = []

    def interrupt(event):
        events.append(event)
        if isinstance(event, Scored) and event.samples == 8:
            os.kill(os.getpid(), number)

    last = run_local(spec_of(base), 1, tmp_path, interrupt)
    assert isinstance(last, Stopped)
    assert isinstance(events[-2], Checkpointed)
    assert events[-2].samples == last.samples == 12
