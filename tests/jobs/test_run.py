"""One job in this process: events, resuming, stopping, failing."""

import errno
import itertools
import math
import re

import pytest
import torch
from safetensors.torch import load_file
from tiny_job import events_of, make_world, spec_of

from jobs.checkpoint import WEIGHTS
from jobs.events import Checkpointed, Failed, Finished, Scored, Started, Step, Stopped
from jobs.place import Dismissal, Place
from jobs.run import run_job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def weights_of(folder, samples):
    return load_file(folder / "checkpoints" / f"samples-{samples:012d}" / WEIGHTS)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def names(events):
    return [event.event for event in events if not isinstance(event, Step)]


def test_a_run_tells_its_story_in_order(base, tmp_path):
    events = events_of(spec_of(base), tmp_path)
    # A checkpoint is told when it is safe on the disk, which may be some steps later.
    saved = [e for e in events if isinstance(e, Checkpointed)]
    assert [e.samples for e in saved] == [8, 16, 24]
    assert names([e for e in events if e not in saved]) == ["started", *["scored"] * 4, "finished"]
    for event in saved:
        before = [e.samples for e in events[: events.index(event)] if isinstance(e, Scored)]
        assert event.samples in before
    assert [e.samples for e in events if isinstance(e, Scored)] == [0, 8, 16, 24]
    for before, event in itertools.pairwise(events):
        if isinstance(event, Scored) and event.samples > 0:
            assert isinstance(before, Step) and before.samples == event.samples
    started = events[0]
    assert isinstance(started, Started)
    assert started.trainable == {"projector": 16 * 24 + 24 + 24 * 24 + 24}
    assert started.versions["torch"] == torch.__version__
    scored = events[1]
    protocol = scored.report.protocol
    assert (protocol.pairs, protocol.layers, protocol.template) == (6, (1, 2, 3), "plain")
    assert scored.guard.gap == pytest.approx(scored.guard.wrong_loss - scored.guard.validation_loss)
    assert all(math.isfinite(e.loss) and e.grad_norm > 0 for e in events if isinstance(e, Step))


def test_the_weights_that_are_trained_on_are_told_beside_those_asked_for(base, tmp_path):
    """b may be seen once, 24 of 96 samples, so it gets a quarter where half was asked for."""
    source = base["data"]["sources"]["a"]
    data = {"sources": {"a": source, "b": source}, "max_epochs": {"b": 1.0}}
    spec = spec_of(base, data=data, optim={"samples": 96}, checkpoint={"every_samples": None})
    assert spec.data.weights == {"a": 0.5, "b": 0.5}
    started = next(run_job(spec, Place(folder=tmp_path / "capped")))
    assert isinstance(started, Started)
    assert started.weights == pytest.approx({"a": 0.75, "b": 0.25})
    free = spec_of(base, data={**data, "max_epochs": {}, "mixture": {"a": 1.0}})
    started = next(run_job(free, Place(folder=tmp_path / "free")))
    assert isinstance(started, Started)
    assert started.weights == {"a": 1.0, "b": 0.0}


def test_the_same_spec_gives_the_same_weights_and_another_seed_others(base, tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        events_of(spec_of(base, seed=seed), tmp_path / name)
    a, b, c = (weights_of(tmp_path / name, 24) for name in "abc")
    assert same(a, b)
    assert not same(a, c)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(base, tmp_path, stage):
    changes = {
        "deepspeed": {"zero_stage": stage, "micro_batch": 2},
        "model": {"moca": {"kind": "noise", "init_std": 0.1} if stage == 0 else {"init_std": 0.02}},
    }
    spec = spec_of(base, **changes)
    events_of(spec, tmp_path / "whole")
    polls = iter(range(100))
    place = Place(
        folder=tmp_path / "parts", stop_requested=lambda: "pruned" if next(polls) == 2 else None
    )
    first = list(run_job(spec, place))
    assert names(first)[-2:] == ["checkpointed", "stopped"]
    assert isinstance(first[-1], Stopped)
    assert (first[-1].samples, first[-1].reason) == (12, "pruned")
    second = events_of(spec, tmp_path / "parts")
    assert second[0].resumed_samples == 12
    assert [e.samples for e in second if isinstance(e, Scored)] == [16, 24]
    assert same(weights_of(tmp_path / "whole", 24), weights_of(tmp_path / "parts", 24))


def test_a_dismissed_job_leaves_at_once_and_saves_nothing(base, tmp_path):
    polls = iter(range(100))
    place = Place(
        folder=tmp_path, stop_requested=lambda: Dismissal("pruned") if next(polls) == 2 else None
    )
    events = list(run_job(spec_of(base), place))
    assert isinstance(events[-1], Stopped)
    assert (events[-1].samples, events[-1].reason) == (12, "pruned")
    assert [e.samples for e in events if isinstance(e, Checkpointed)] == [8]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["samples-000000000008"]


def test_scoring_leaves_training_untouched(base, tmp_path):
    moca = {"kind": "noise", "init_std": 0.3}  # draws random numbers in every training step
    seldom = spec_of(base, model={"moca": moca}, score={"every_samples": 1000})
    often = spec_of(base, model={"moca": moca}, score={"every_samples": 4})
    assert len([e for e in events_of(often, tmp_path / "often") if isinstance(e, Scored)]) == 7
    assert len([e for e in events_of(seldom, tmp_path / "seldom") if isinstance(e, Scored)]) == 2
    assert same(weights_of(tmp_path / "often", 24), weights_of(tmp_path / "seldom", 24))


def test_a_score_missed_because_of_a_stop_is_made_up_for(base, tmp_path):
    polls = iter(range(100))
    place = Place(folder=tmp_path, stop_requested=lambda: "now" if next(polls) == 1 else None)
    first = list(run_job(spec_of(base), place))
    assert [e.samples for e in first if isinstance(e, Scored)] == [0]
    second = events_of(spec_of(base), tmp_path)
    assert [e.samples for e in second if isinstance(e, Scored)] == [8, 16, 24]


def test_a_finished_run_has_nothing_left_to_do(base, tmp_path):
    spec = spec_of(base, optim={"samples": 8})
    events_of(spec, tmp_path)
    again = events_of(spec, tmp_path)
    assert names(again) == ["started", "finished"]


def test_divergence_is_told_with_its_step(base, tmp_path):
    spec = spec_of(base, optim={"learning_rate": 1e30, "gradient_clip": 0.0})
    last = events_of(spec, tmp_path)[-1]
    assert isinstance(last, Failed)
    assert last.kind == "diverged"
    assert "step 2" in last.reason or "8 samples" in last.reason
    assert last.detail == ""


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": {"vision": "no/such-folder-here/x"}}, "bad-configuration", "model.vision"),
        ({"deepspeed": {"precision": "fp16"}}, "bad-configuration", "fp16 needs a GPU"),
        ({"deepspeed": {"micro_batch": 3}}, "bad-configuration", "use 3 or 6"),
        ({"score": {"pairs": 99}}, "bad-configuration", "score.pairs: 99 .* only 24"),
        ({"data": {"validation_samples": 1}}, "bad-configuration", "use 2 or more"),
    ],
)
def test_what_the_user_got_wrong_is_one_line(base, tmp_path, changes, kind, words):
    events = events_of(spec_of(base, **changes), tmp_path)
    (last,) = events
    assert isinstance(last, Failed)
    assert last.kind == kind
    assert "\n" not in last.reason
    assert re.search(words, last.reason), last.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"data": {"max_caption_tokens": 124}},
            r"max_caption_tokens: 124 .* make it 1 less",
        ),
        ({"score": {"template": "plain"}}, r"score.max_text_tokens: 200 .* make it 77 less"),
        ({"score": {"template": "chat"}}, r"score.max_text_tokens: 20\d .* make it [78]\d less"),
        ({"model": {"projector": "resampler128"}}, r"128 vision tokens .* gives fewer"),
    ],
)
def test_more_positions_than_the_language_model_has_are_refused(base, tmp_path, changes, words):
    if "score" in changes:
        (tmp_path / "long.txt").write_text("\n".join([" red" * 300] * 6))
        texts = {"source": str(tmp_path / "long.txt")}
        changes = {"score": {**changes["score"], "texts": texts, "max_text_tokens": 200}}
    last = events_of(spec_of(base, **changes), tmp_path)[-1]
    assert isinstance(last, Failed) and last.kind == "bad-configuration", last
    assert re.search(words, last.reason), last.reason


def test_a_folder_with_another_jobs_checkpoint_is_refused(base, tmp_path):
    events_of(spec_of(base, optim={"samples": 8}), tmp_path)
    last = events_of(spec_of(base, optim={"samples": 8, "learning_rate": 1e-3}), tmp_path)[-1]
    assert isinstance(last, Failed)
    assert last.kind == "bad-data"
    assert "made by another job" in last.reason


def test_other_micro_batch_and_stage_resume_the_same_job(base, tmp_path):
    polls = iter(range(100))
    place = Place(folder=tmp_path, stop_requested=lambda: "oom" if next(polls) == 2 else None)
    list(run_job(spec_of(base), place))
    smaller = spec_of(base, deepspeed={"micro_batch": 1, "zero_stage": 3})
    events = events_of(smaller, tmp_path)
    assert events[0].resumed_samples == 12
    assert isinstance(events[-1], Finished)


def test_an_unexpected_error_carries_its_traceback(base, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("something odd")

    monkeypatch.setattr("jobs.run.build_job", broken)
    (last,) = events_of(spec_of(base), tmp_path)
    assert (last.kind, last.reason) == ("error", "RuntimeError: something odd")
    assert "in broken" in last.detail


def test_a_full_disk_is_told_and_leaves_nothing_half_written(base, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    events = events_of(spec_of(base), tmp_path)
    assert events[-1].kind == "disk-full"
    assert not any(isinstance(event, Checkpointed) for event in events)
    assert list((tmp_path / "checkpoints").iterdir()) == []
