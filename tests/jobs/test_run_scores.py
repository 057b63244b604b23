"""Scores of a run: they leave no trace in the weights, and those too dear are spared."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_job import events_of, make_world, spec_of

from jobs.checkpoint import WEIGHTS, newest
from jobs.events import Finished, GuardReading, Scored, Spared
from jobs.launch import run_local
from jobs.place import Place
from jobs.run import run_job
from jobs.scoring import Scorer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DEAR = {"every_samples": 4, "overhead_limit": 1e-6}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def weights_of(folder):
    return load_file(folder / "checkpoints" / "samples-000000000024" / WEIGHTS)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_run_that_never_scores_ends_in_the_same_weights(base, tmp_path, monkeypatch, stage):
    """Every step draws random numbers (noise, LoRA's dropout), so any trace would show."""
    spec = spec_of(
        base,
        model={
            "moca": {"kind": "noise", "init_std": 0.3},
            "trainable": {"lora": {"rank": 2, "dropout": 0.2}},
        },
        deepspeed={"zero_stage": stage},
    )
    events = events_of(spec, tmp_path / "scored")
    one = next(e for e in events if isinstance(e, Scored))
    guard = GuardReading(validation_loss=1.0, wrong_loss=1.0, gap=0.0, gap_error=0.0)
    monkeypatch.setattr(Scorer, "score", lambda _: (one.report, guard))
    events_of(spec, tmp_path / "never")
    scored, never = weights_of(tmp_path / "scored"), weights_of(tmp_path / "never")
    assert scored.keys() == never.keys()
    assert any("lora" in name for name in scored)
    assert all(torch.equal(never[name], value) for name, value in scored.items())


def test_dear_scores_are_spared_but_the_first_the_promised_and_the_last(base, tmp_path):
    events = events_of(spec_of(base, score=DEAR), tmp_path)
    # Of 24 samples a quarter is 6, and the first score at or past it is at 8.
    assert [e.samples for e in events if isinstance(e, Scored)] == [0, 8, 24]
    spared = [e for e in events if isinstance(e, Spared)]
    assert [e.samples for e in spared] == [4, 12, 16, 20]
    assert all(0 < e.share < 1 and "only the last is made" in e.reason for e in spared)


def test_a_spared_score_stays_spared_after_resuming_and_costs_are_remembered(base, tmp_path):
    polls = iter(range(100))
    place = Place(folder=tmp_path, stop_requested=lambda: "now" if next(polls) == 3 else None)
    spec = spec_of(base, score=DEAR)
    first = list(run_job(spec, place))
    assert [e.samples for e in first if isinstance(e, Spared)] == [4, 12]
    kept = newest(tmp_path / "checkpoints", spec).progress
    # The score at 16 fell to the stop: whoever asks to stop is waiting.
    assert (kept.samples, kept.scored) == (16, 12)
    assert kept.scoring_s > kept.score_s > 0 and kept.trained_s > 0
    second = events_of(spec, tmp_path)
    assert [e.samples for e in second if isinstance(e, Spared)] == [16, 20]
    assert [e.samples for e in second if isinstance(e, Scored)] == [24]


@pytest.mark.slow
def test_ranks_agree_on_what_is_spared(base, tmp_path):
    events = []
    last = run_local(spec_of(base, score=DEAR), 2, tmp_path, events.append)
    assert isinstance(last, Finished), last
    assert [e.samples for e in events if isinstance(e, Spared)] == [4, 12, 16, 20]
