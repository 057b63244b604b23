"""Which checkpoints stay, what they say of frozen parts, and writing beside the training."""

import errno
import json
import os
import signal
import sys
import threading
import time

import pytest
import torch
from model_zoo import RESNET
from tiny_job import events_of, make_world, spec_of

from jobs.checkpoint import Progress, frozen_parts, newest, require_same_frozen, save
from jobs.checkpoint.frozen import digest_of
from jobs.checkpoint.policy import kept
from jobs.checkpoint.writer import Writer
from jobs.events import Checkpointed, Failed, Scored
from jobs.load import build_job, load_checkpoint
from jobs.model.build import build_model
from jobs.spec import CheckpointSpec, JobSpec
from mir.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SOURCE = {"kind": "jsonl", "path": "a.jsonl"}
BARE = {"data": {"sources": {"a": SOURCE}, "validation": SOURCE}}


def at(samples, mir=None, learnt=True):
    return Progress(samples=samples, step=samples, scored=samples, ranks=1, mir=mir, learnt=learnt)


@pytest.mark.parametrize(
    ("policy", "stays"),
    [
        ({"keep": 1}, {60}),
        ({"keep": 2}, {50, 60}),
        ({"keep": 1, "keep_best": 1}, {30, 60}),
        ({"keep": 1, "keep_best": 2}, {30, 40, 60}),
        ({"keep": 1, "keep_best": 9}, {20, 30, 40, 50, 60}),
        ({"keep": 1, "keep_every_samples": 25}, {30, 50, 60}),
        ({"keep": 1, "keep_every_samples": 100}, {60}),
    ],
)
def test_the_policy(policy, stays):
    found = [
        at(10), at(20, 0.5, learnt=False), at(30, 1.0), at(40, 1.5), at(50, 2.0), at(60, 3.0),
    ]  # fmt: skip
    assert kept(found, CheckpointSpec(**policy)) == stays


def test_of_equally_good_ones_the_later_stays():
    assert kept([at(1, 1.0), at(2, 1.0), at(3)], CheckpointSpec(keep=1, keep_best=1)) == {2, 3}


def test_a_run_keeps_its_best_by_mir(tmp_path):
    base = make_world(tmp_path)
    spec = spec_of(base, checkpoint={"every_samples": 4, "keep": 1, "keep_best": 1},
                   score={"every_samples": 4})  # fmt: skip
    events = events_of(spec, tmp_path / "run")
    start, *later = [e for e in events if isinstance(e, Scored)]
    learnt = [e for e in later if e.guard.validation_loss < start.guard.validation_loss]
    best = min(learnt or later, key=lambda e: e.mir["mir"])
    left = {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert left == {f"samples-{n:012d}" for n in (best.samples, 24)}
    assert 0 < later[-1].share < 1


def test_a_digest_sees_every_kind_of_change():
    a, b = torch.arange(1000.0), torch.ones(3, 5, dtype=torch.bfloat16)
    same = digest_of([("a", a), ("b", b)])
    assert digest_of([("b", b.clone()), ("a", a.clone())]) == same
    moved = a.clone()
    moved[[0, 700]] = moved[[700, 0]]
    nudged = a.clone()
    nudged[-1] = torch.nextafter(nudged[-1], torch.tensor(1e9))
    others = [moved, nudged, a.view(10, 100), a.double()]
    digests = {digest_of([("a", other), ("b", b)]) for other in others}
    digests |= {digest_of([("c", a), ("b", b)]), digest_of([("b", b)]), same}
    assert len(digests) == 7


def test_frozen_parts_are_named_by_source_and_checked_on_resuming(tmp_path):
    base = make_world(tmp_path)
    spec = spec_of(base, optim={"samples": 8})
    events_of(spec, tmp_path / "run")
    found = newest(tmp_path / "run" / "checkpoints", spec)
    assert found.frozen == frozen_parts(build_model(spec.model, 0).model, spec)
    assert set(found.frozen) == {"vision", "language"}
    assert found.frozen["language"].source == base["model"]["language"]
    assert found.frozen["vision"].parameters > 1000
    make_language_anew(tmp_path)
    with pytest.raises(DataError, match=r"frozen language weights of .*llama.* with digest"):
        load_checkpoint(found.path)
    more = spec_of(base, optim={"samples": 8}, checkpoint={"keep": 1})
    (last,) = events_of(more, tmp_path / "run")
    assert isinstance(last, Failed)
    assert (last.kind, last.detail) == ("bad-data", "")


@pytest.mark.parametrize("trainable", ["projector", {"vision_from": "all", "projector": True}])
def test_statistics_of_batch_norms_are_frozen_and_checked(tmp_path, trainable):
    base = make_world(tmp_path)
    encoder = make_resnet(tmp_path / "resnet")
    base["model"] |= {
        "vision": str(tmp_path / "resnet"), "select_layer": -1, "trainable": trainable,
    }  # fmt: skip
    spec = spec_of(base, optim={"samples": 8})
    events_of(spec, tmp_path / "run")
    found = newest(tmp_path / "run" / "checkpoints", spec)
    assert found.frozen == frozen_parts(build_model(spec.model, 0).model, spec)
    assert bool(found.frozen["vision"].parameters) == (trainable == "projector")
    assert found.frozen["language"].buffers is None
    load_checkpoint(found.path)
    tune = spec_of(base, start=str(found.path))
    build_job(tune)
    encoder.embedder.embedder.normalization.running_mean += 1
    encoder.save_pretrained(tmp_path / "resnet")
    for opened in (lambda: load_checkpoint(found.path), lambda: build_job(tune)):
        with pytest.raises(DataError, match=r"frozen vision buffers of .*resnet with digest"):
            opened()
    (last,) = events_of(spec_of(base, optim={"samples": 8}), tmp_path / "run")
    assert isinstance(last, Failed)
    assert last.kind == "bad-data"
    # One of before buffers were looked at.
    state = json.loads((found.path / "state.json").read_text())
    for part in state["frozen"].values():
        del part["buffers"]
    (found.path / "state.json").write_text(json.dumps(state))
    load_checkpoint(found.path)


def make_resnet(folder):
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessorPil

    encoder = ResNetModel(ResNetConfig(**RESNET))
    encoder.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return encoder


def make_language_anew(folder):
    from transformers import AutoModelForCausalLM

    language = AutoModelForCausalLM.from_pretrained(folder / "llama")
    with torch.no_grad():
        language.lm_head.weight[0, 0] += 1
    language.save_pretrained(folder / "llama")


def test_what_learns_is_not_held_to_a_digest():
    require_same_frozen("here", {}, {"vision": object()})
    then = {"vision": frozen_of("old")}
    with pytest.raises(DataError, match="the model now has none"):
        require_same_frozen("here", then, {})


def frozen_of(digest):
    from jobs.checkpoint import FrozenPart

    return FrozenPart(source="x", parameters=1, digest=digest)


def test_the_writer_does_not_keep_the_training_waiting(tmp_path, monkeypatch):
    may_write, spec = threading.Event(), JobSpec.model_validate(BARE)

    def slow(folder, spec, progress, tensors, frozen):
        may_write.wait(30)
        return save(folder, spec, progress, tensors, frozen)

    monkeypatch.setattr("jobs.checkpoint.writer.save", slow)
    writer = Writer(tmp_path, spec, {})
    writer.write(at(1), {"weight/a": torch.ones(2)})
    assert writer.finished() is None
    assert newest(tmp_path, spec) is None
    may_write.set()
    assert writer.wait().progress == at(1)
    assert newest(tmp_path, spec).progress == at(1)
    assert writer.wait() is None
    writer.close()


def test_an_error_of_a_write_is_raised_once_at_the_next_call(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("jobs.checkpoint.writer.save", full)
    writer = Writer(tmp_path, JobSpec.model_validate(BARE), {})
    writer.write(at(1), {})
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert writer.finished() is None
    writer.close()


def test_a_save_killed_at_any_system_call_leaves_a_whole_checkpoint(tmp_path):
    """A child saves a second checkpoint over a policy that keeps one, and dies at its n-th call."""
    spec = JobSpec.model_validate({**BARE, "checkpoint": {"keep": 1}})
    calls = 0
    while True:
        folder = tmp_path / str(calls)
        save(folder, spec, at(1), {"weight/a": torch.full((4,), 1.0)})
        child = os.fork()
        if child == 0:
            try:
                die_at(calls)
                save(folder, spec, at(2), {"weight/a": torch.full((4,), 2.0)})
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        found = newest(folder, spec)
        assert found.weights()["a"].tolist() == [float(found.progress.samples)] * 4
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        calls += 1
    assert found.progress == at(2)
    assert calls > 10


def die_at(number):
    """Kill this process at its `number`-th file operation from now on."""
    left = [number]

    def hook(event, _args):
        if event.split(".")[0] in ("open", "os", "shutil"):
            left[0] -= 1
            if left[0] == -1:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_checkpoints_are_told_after_they_are_safe(tmp_path, monkeypatch):
    import jobs.checkpoint.writer as writer_module

    safe = []

    def slow(folder, spec, progress, tensors, frozen):
        time.sleep(0.05)
        done = save(folder, spec, progress, tensors, frozen)
        safe.append(str(done.path))
        return done

    monkeypatch.setattr(writer_module, "save", slow)
    base = make_world(tmp_path)
    told = []
    from jobs.place import Place
    from jobs.run import run_job

    for event in run_job(spec_of(base), Place(folder=tmp_path / "run")):
        if isinstance(event, Checkpointed):
            assert event.path in safe
            told.append(event.samples)
    assert told == [8, 16, 24]
