"""Calibration: a few steps of the base job, and what they mean for the whole sweep."""

import pytest
from small_world import make_sweep, score

from jobs.events import Failed, Finished, Started, Step
from mir.errors import MirsweepError
from orchestrator.calibration import STEPS, Calibration, calibrate, estimate, short
from sweeps.spec import ResourceSpec


def step(samples, pace):
    return Step(
        samples=samples, loss=1.0, learning_rate=1.0, grad_norm=1.0, samples_per_second=pace
    )


def pretended(job, hear):
    assert job.optim.samples == job.score.every_samples == STEPS * job.optim.global_batch
    hear(Started(ranks=1, device="cpu", trainable={}))
    hear(score(0, 3.0).model_copy(update={"seconds": 1.0}))
    for n, pace in enumerate((2.0, 10.0, 10.0, 12.0)):
        hear(step(8 * n, pace))
    hear(score(64, 2.0).model_copy(update={"seconds": 3.0}))
    return Finished(samples=64, seconds=1.0)


def test_the_first_step_pays_for_what_is_made_once():
    times = iter([100.0, 105.0])
    found = calibrate(make_sweep().base, pretended, clock=lambda: next(times))
    assert found == Calibration(start=5.0, sample=0.1, score=2.0)


def test_a_full_trial_has_all_its_samples_and_scores():
    job = make_sweep().base  # 64 samples, a score before and every 16
    found = Calibration(start=5.0, sample=0.1, score=2.0)
    assert found.trial(job) == pytest.approx(5 + 6.4 + 5 * 2)
    assert short(job).model_copy(update={"optim": job.optim}).optim == job.optim


def test_the_sweep_takes_rounds_of_trials_and_hours_of_devices():
    gang = ResourceSpec(workers=2, gpus_per_worker=1, price_per_hour=10.0)
    spec = make_sweep(5, resources=gang)
    found = Calibration(start=0.0, sample=3600 / 64, score=0.0)
    whole = estimate(spec, found, at_once=2)
    assert (whole.trial, whole.seconds, whole.hours) == (3600, 3 * 3600, 10)
    assert (whole.unit, whole.cost) == ("GPU-hours", 100)
    assert dict(whole.lines())["all trials"] == "at most 3 h 00 min, 10 GPU-hours"
    nowhere = estimate(spec, found, at_once=0)
    assert nowhere.seconds is None and "do not fit" in dict(nowhere.lines())["all trials"]


def test_where_the_search_chooses_the_ranks_the_most_are_reckoned_with():
    spec = make_sweep(5)
    space = {**spec.space, "resources": {"workers": {"choices": [1, 4]}}}
    found = Calibration(start=0.0, sample=3600 / 64, score=0.0)
    whole = estimate(spec.model_copy(update={"space": space}), found, at_once=1)
    assert (whole.hours, whole.seconds) == (20, 5 * 3600)


def test_a_job_that_fails_says_why():
    lost = Failed(kind="bad-data", reason="no such picture")
    with pytest.raises(MirsweepError, match="no such picture"):
        calibrate(make_sweep().base, lambda _job, _hear: lost)
