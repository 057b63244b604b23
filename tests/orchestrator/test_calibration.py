"""Calibration: a few steps of the base job, and what they mean for the whole sweep."""

from contextlib import closing
from pathlib import Path

import pytest
from small_world import make_sweep, score
from typer.testing import CliRunner

import sweeps
from jobs.events import Failed, Finished, Started, Step
from mir.errors import ClusterError, MirsweepError
from orchestrator.calibration import STEPS, Calibration, calibrate, estimate, short
from orchestrator.cli import app
from orchestrator.executors.inline import InlineExecutor
from orchestrator.ports import JobEvent, Waiting
from sweeps.spec import ResourceSpec


def step(samples, pace):
    return Step(
        samples=samples, loss=1.0, learning_rate=1.0, grad_norm=1.0, samples_per_second=pace
    )


def pretended(job, place):
    """The second job is slower, as where both share a memory."""
    assert job.optim.samples == job.score.every_samples == STEPS * job.optim.global_batch
    slower = 1.0 + int(place.folder.name)
    yield Started(ranks=1, device="cpu", trainable={})
    yield score(0, 3.0).model_copy(update={"seconds": 1.0 * slower})
    for n, pace in enumerate((2.0, 12.0, 12.0, 14.0)):
        yield step(8 * n, pace / slower)
    yield score(64, 2.0).model_copy(update={"seconds": 3.0 * slower})
    yield Finished(samples=64, seconds=1.0)


def calibrated(runner, folder, beside=1, **settings):
    executor = InlineExecutor(runner, slots=beside, nodes=((float(beside), 0.0),))
    with closing(executor):
        return calibrate(make_sweep().base, executor, ResourceSpec(), beside, folder, **settings)


def test_the_first_step_pays_for_what_is_made_once(tmp_path):
    times = iter([100.0, 105.0])
    found = calibrated(pretended, tmp_path, clock=lambda: next(times))
    assert found == Calibration(start=5.0, sample=1 / 12, score=2.0)


def test_jobs_that_will_run_side_by_side_are_measured_side_by_side(tmp_path):
    times = iter([100.0, 105.0, 107.0])
    found = calibrated(pretended, tmp_path, beside=2, clock=lambda: next(times))
    assert found == Calibration(start=7.0, sample=1 / 9, score=3.0)


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


def test_a_job_that_fails_says_why(tmp_path):
    def lost(_job, _place):
        yield Failed(kind="bad-data", reason="no such picture")

    with pytest.raises(MirsweepError, match="no such picture"):
        calibrated(lost, tmp_path)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Not where a person may have run a study of the recipe's name."""
    monkeypatch.chdir(tmp_path)


def test_a_machine_that_cannot_hold_the_job_is_named_as_the_reason():
    recipe = str(Path(sweeps.__file__).parent / "recipes" / "quickstart.yaml")
    large = ["--set", "resources.workers=100000", "--set", "base.optim.global_batch=100000"]
    done = CliRunner().invoke(app, ["plan", recipe, "--calibrate", *large])
    assert done.exit_code == 2, done.output
    assert "error: --calibrate: here, resources: a job needs 100000 workers" in done.stderr
    assert done.stderr.count("\n") == 1


def test_with_an_address_the_cluster_is_what_is_calibrated(tmp_path, monkeypatch):
    from orchestrator.executors import ray_executor

    addresses, folders = [], []

    class Cluster(InlineExecutor):
        def __init__(self, address=None):
            addresses.append(address)
            super().__init__(pretended, slots=2, nodes=((64.0, 0.0),))

        def free(self):
            return self.capacity()

        def start(self, launch):
            folders.append(launch.folder)
            super().start(launch)

    monkeypatch.setattr(ray_executor, "RayExecutor", Cluster)
    recipe = str(Path(sweeps.__file__).parent / "recipes" / "quickstart.yaml")
    words = ["--calibrate", "--address", "head:6379", "--folder", str(tmp_path / "runs" / "s")]
    # What only the cluster has: this machine would refuse it.
    custom = ["--set", "resources.workers=8", "--set", "resources.spread=strict-pack"]
    done = CliRunner().invoke(app, ["plan", recipe, *words, *custom])
    assert done.exit_code == 0, done.output
    assert set(addresses) == {"head:6379"}
    # The cluster's nodes see the study's folder, not this machine's place for temporary files.
    assert {folder.parent.parent for folder in folders} == {tmp_path}
    assert not list(tmp_path.iterdir())


def test_a_job_that_finds_no_room_is_said_and_not_waited_for(tmp_path):
    class Crowded(InlineExecutor):
        def wait(self, timeout_s):
            return [JobEvent(trial=0, attempt=1, event=Waiting(reason="needs 1 CPUs, 0 free"))]

    with closing(Crowded(pretended)) as executor, pytest.raises(ClusterError, match="0 free"):
        calibrate(make_sweep().base, executor, ResourceSpec(), 1, tmp_path)
