"""What a job skips is told: in training, in what it is scored on, and however it ends."""

import json
import logging
import multiprocessing

import pytest
import warm as warm_processes
from data_files import write_listing
from tiny_job import events_of, make_world, spec_of

from jobs.checkpoint import STATE, open_checkpoint
from jobs.data.build import open_source
from jobs.engine.deepspeed_engine import Engine
from jobs.evaluation import take
from jobs.events import Failed, Finished, Scored, Skipped, Started, Stopped
from jobs.launch import free_port
from jobs.place import Dismissal, Place
from jobs.run import run_job
from jobs.spec import SourceSpec
from mir.errors import ClusterError, ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
warm = warm_processes.warm


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def web(folder, *, bad, good=20):
    """A source of good samples and `bad` lines, half of them in another encoding."""
    path = write_listing(folder, good)
    with path.open("ab") as file:
        for n in range(bad):
            caption = "Gr\xf6\xdfe".encode("latin-1") if n % 2 else b""
            file.write(b'{"image": "0.png", "caption": "%b"}\n' % caption)
    return {"kind": "jsonl", "path": str(path)}


def skips(events):
    return [(e.source, e.reason, e.count) for e in events if isinstance(e, Skipped)]


def test_too_many_bad_samples_are_told_before_the_job_fails_for_them(base, tmp_path):
    """Nothing is saved before: what was skipped is told at checkpoints and at the end."""
    source = web(tmp_path / "web", bad=20)
    spec = spec_of(
        base, data={"sources": {"web": source}, "max_bad_fraction": 0.0},
        optim={"global_batch": 40, "samples": 80}, checkpoint={"every_samples": None},
    )  # fmt: skip
    events = events_of(spec, tmp_path / "job")
    failed = events[-1]
    assert isinstance(failed, Failed)
    assert failed.kind == "bad-data"
    assert "20 of 40 samples could not be used" in failed.reason
    assert "web: caption empty 10" in failed.reason
    assert "web: entry is not UTF-8 10" in failed.reason
    assert skips(events) == [("web", "caption empty", 10), ("web", "entry is not UTF-8", 10)]
    assert isinstance(events[-2], Skipped)


def test_what_was_skipped_is_told_where_a_job_ends_for_another_reason(base, tmp_path):
    source = web(tmp_path / "web", bad=20)
    spec = spec_of(
        base, data={"sources": {"web": source}, "max_bad_fraction": 1.0},
        optim={"global_batch": 20, "samples": 80, "learning_rate": 1e30, "gradient_clip": 0.0},
        checkpoint={"every_samples": None},
    )  # fmt: skip
    events = events_of(spec, tmp_path / "job")
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "diverged"
    assert sum(count for _, _, count in skips(events)) > 0


@pytest.mark.parametrize("reason", ["paused", Dismissal("pruned")])
def test_what_was_skipped_is_told_by_a_job_that_is_asked_to_leave(base, tmp_path, reason):
    source = web(tmp_path / "web", bad=20)
    spec = spec_of(
        base, data={"sources": {"web": source}, "max_bad_fraction": 1.0},
        optim={"global_batch": 20, "samples": 80}, checkpoint={"every_samples": None},
    )  # fmt: skip
    polls = iter(range(9))
    stop = {"stop_requested": lambda: reason if next(polls) == 1 else None}
    events = events_of(spec, tmp_path / "job", **stop)
    assert isinstance(events[-1], Stopped)
    assert sum(count for _, _, count in skips(events)) == 20
    assert (tmp_path / "job" / "checkpoints").exists() is (reason == "paused")


def test_a_store_that_drops_out_is_no_reason_to_tell(base, tmp_path, monkeypatch):
    """The job is restarted, and reads and tells the same samples again."""
    spec = spec_of(
        base, data={"sources": {"web": web(tmp_path / "web", bad=20)}, "max_bad_fraction": 1.0},
        optim={"global_batch": 20, "samples": 80}, checkpoint={"every_samples": None},
    )  # fmt: skip
    taken, step = iter(range(9)), Engine.step

    def dropping(*args):
        if next(taken) == 2:
            raise ClusterError("s3://pictures: connection reset by peer")
        return step(*args)

    monkeypatch.setattr(Engine, "step", dropping)
    events = events_of(spec, tmp_path / "job")
    assert isinstance(events[-1], Failed) and not skips(events)


def test_bad_samples_of_what_is_scored_on_are_told_once(base, tmp_path):
    """Both walks over one source meet the same bad ones; a resumed run has told them before."""
    spec = spec_of(
        base, data={"validation": web(tmp_path / "v", bad=4), "validation_samples": 20},
        optim={"samples": 8}, score={"pairs": 16},
    )  # fmt: skip
    events = events_of(spec, tmp_path / "job")
    assert isinstance(events[-1], Finished)
    assert isinstance(events[0], Started)
    told = skips(events)
    assert {source for source, _, _ in told} == {"data.validation"}
    assert {r: c for _, r, c in told} == {"caption empty": 2, "entry is not UTF-8": 2}
    assert all(isinstance(e, Skipped) for e in events[1 : 1 + len(told)])
    assert skips(events_of(spec, tmp_path / "job")) == []


def test_pictures_of_their_own_are_told_by_their_name(base, tmp_path):
    images = web(tmp_path / "p", bad=2, good=10)
    spec = spec_of(base, optim={"samples": 4}, score={"pairs": 10, "images": images})
    found = skips(events_of(spec, tmp_path / "job"))
    assert {source for source, _, _ in found} == {"score.images"}
    assert len(found) == 2


@pytest.mark.parametrize("field", ["validation", "images"])
def test_too_many_bad_samples_of_what_is_scored_on_end_the_job(base, tmp_path, field):
    source = web(tmp_path / "v", bad=400, good=400)
    changes = {"data": {"validation": source, "validation_samples": 40}}
    if field == "images":
        changes = {"score": {"pairs": 24, "images": source}}
    events = events_of(spec_of(base, **changes), tmp_path / "job")
    (failed,) = events
    assert isinstance(failed, Failed)
    assert failed.kind == "bad-data"
    name = "data.validation" if field == "validation" else "score.images"
    assert failed.reason.startswith(f"{name}: ")
    assert "(caption empty " in failed.reason or "(entry is not UTF-8 " in failed.reason
    assert "max_bad_fraction 0.01" in failed.reason


def test_samples_taken_for_an_evaluation_say_in_the_log_what_was_skipped(tmp_path, caplog):
    source = open_source(SourceSpec(**web(tmp_path / "q", bad=6, good=30)))
    with caplog.at_level(logging.WARNING):
        assert len(take(source, 30, "evaluate.question_count", "evaluate.questions", 0.01)) == 30
    (record,) = caplog.records
    assert record.getMessage() == (
        "evaluate.questions: skipped 6 of 36 samples (entry is not UTF-8 3, caption empty 3)"
    )
    limit = r"evaluate\.questions: 2 of 4 samples .* evaluate\.max_bad_fraction 0\.001"
    with pytest.raises(DataError, match=limit):
        take(source, 30, "evaluate.question_count", "evaluate.questions", 0.001)
    with pytest.raises(ConfigError, match="only 30 usable samples"):
        take(source, 31, "evaluate.question_count", "evaluate.questions", 0.01)


def test_a_job_that_fails_alone_asks_no_other_rank(base, tmp_path, monkeypatch):
    """The others may be waiting for its next step: gathering from them would never end."""
    import jobs.run

    none = web(tmp_path / "web", bad=20, good=0)
    spec = spec_of(base, data={"sources": {"web": none}, "max_bad_fraction": 1.0})
    asked = []
    gather = jobs.run.gather_objects
    monkeypatch.setattr(jobs.run, "gather_objects", lambda v: asked.append(v) or gather(v))
    running = run_job(spec, Place(folder=tmp_path / "job"))
    for event in running:
        if isinstance(event, Scored):
            before = len(asked)
    assert isinstance(event, Failed) and "none of its 20 samples" in event.reason
    assert len(asked) == before


def half_bad(base, folder, *, limit, samples):
    """Every step of 40 samples sees 20 bad ones. Beyond what part of a run is too many?"""
    return spec_of(
        base, data={"sources": {"web": web(folder, bad=20)}, "max_bad_fraction": limit},
        optim={"global_batch": 40, "samples": samples}, checkpoint={"every_samples": 40},
        score={"every_samples": 1000},
    )  # fmt: skip


def asked_after(step):
    """A request to stop that comes with this step, 0 for the first."""
    polls = iter(range(99))
    return lambda: "paused" if next(polls) == step else None


def test_too_many_bad_samples_end_a_job_with_one_line_that_names_the_last(base, tmp_path):
    *_, failed = events_of(half_bad(base, tmp_path / "w", limit=0.01, samples=80), tmp_path / "job")
    assert failed.reason.startswith(
        "data.max_bad_fraction: 20 of 40 samples could not be used, more than 0.01 allows (web: "
    )
    assert "; the last: data.jsonl:" in failed.reason
    assert "\n" not in failed.reason


def test_a_few_bad_among_the_first_samples_are_no_reason_to_stop(base, tmp_path):
    *_, last = events_of(half_bad(base, tmp_path / "w", limit=0.02, samples=40), tmp_path / "job")
    assert isinstance(last, Finished)


@pytest.mark.parametrize("stops", [(0,), (0, 0)])
def test_a_resumed_job_goes_on_with_what_was_bad_before(base, tmp_path, stops):
    """60 bad of 120 are too many, however many attempts it took."""
    spec = half_bad(base, tmp_path / "w", limit=0.05, samples=120)
    *_, whole = events_of(spec, tmp_path / "whole")
    assert isinstance(whole, Failed) and ": 60 of 120 samples " in whole.reason
    for step in stops:
        *_, last = events_of(spec, tmp_path / "job", stop_requested=asked_after(step))
        assert isinstance(last, Stopped)
    assert events_of(spec, tmp_path / "job")[-1] == whole


def test_a_checkpoint_knows_what_was_bad_and_an_older_one_counts_as_none(base, tmp_path):
    spec = half_bad(base, tmp_path / "w", limit=0.03, samples=80)
    events_of(spec, tmp_path / "job", stop_requested=asked_after(0))
    (folder,) = (tmp_path / "job" / "checkpoints").iterdir()
    told = {"web: caption empty": 10, "web: entry is not UTF-8": 10}
    assert open_checkpoint(folder)[0].progress.bad == told
    state = json.loads((folder / STATE).read_text())
    del state["progress"]["bad"]
    (folder / STATE).write_text(json.dumps(state))
    assert open_checkpoint(folder)[0].progress.bad == {}
    assert isinstance(events_of(spec, tmp_path / "job")[-1], Finished)


def test_too_many_from_before_end_a_job_though_it_has_read_nothing_bad_itself(base, tmp_path):
    spec = spec_of(base, optim={"samples": 32})
    events_of(spec, tmp_path / "job", stop_requested=asked_after(0))
    (folder,) = (tmp_path / "job" / "checkpoints").iterdir()
    state = json.loads((folder / STATE).read_text())
    state["progress"]["bad"] = {"web: caption empty": 50}
    (folder / STATE).write_text(json.dumps(state))
    *_, failed = events_of(spec, tmp_path / "job")
    assert "(web: caption empty 50): mend the data" in failed.reason


def one_of_two(rank, port, spec, folder, told):
    place = Place(folder=folder, rank=rank, world_size=2, local_rank=rank, master_port=port)
    *_, last = run_job(spec, place)
    told.put(last)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_two_ranks_end_together_with_the_words_of_one(base, tmp_path):
    """Neither has met too many by itself."""
    spec = half_bad(base, tmp_path / "w", limit=0.015, samples=40)
    context = multiprocessing.get_context("spawn")
    told, port = context.Queue(), free_port()
    for rank in range(2):
        arguments = (rank, port, spec, tmp_path / "two", told)
        context.Process(target=one_of_two, args=arguments, daemon=True).start()
    ends = [told.get(timeout=100) for _ in range(2)]
    *_, alone = events_of(spec, tmp_path / "one")
    assert isinstance(alone, Failed) and ": 20 of 40 samples " in alone.reason
    assert ends == [alone, alone]
