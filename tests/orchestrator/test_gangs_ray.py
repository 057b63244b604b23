"""Real Ray on several nodes: where gangs lie, what they wait for, and what a cluster that grows
by demand sees of them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
import small_world
from small_world import FakeJobs, FakeStudy, make_sweep
from typer.testing import CliRunner

from jobs.events import Finished, Scored, Started, Step, Stopped
from jobs.place import Place
from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.fold import load_view
from orchestrator.placement import job_slots
from orchestrator.ports import Launch, Placed, Waiting
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.recipe import dump_recipe
from sweeps.spec import ResourceSpec, StopSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]
JOB = make_sweep().base


def located(spec, place):
    """A job that says on which node each rank is, by its raylet, and runs until it is stopped."""
    yield Started(ranks=place.world_size, device=place.device, trainable={})
    (place.folder / f"rank{place.rank}").write_text(f"{os.getppid()} {place.world_size}")
    for samples in range(1, 6000):
        yield Step(samples=samples, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)
        if place.stop_requested():
            yield Stopped(samples=samples, reason=place.stop_requested())
            return
        time.sleep(0.01)
    yield Finished(samples=6000, seconds=1.0)


def quick(spec, place):
    """A whole job that leaves its number of ranks behind; they begin together, as real ones."""
    (place.folder / f"size{place.rank}").write_text(str(place.world_size))
    while not all((place.folder / f"size{rank}").exists() for rank in range(place.world_size)):
        time.sleep(0.01)
    mine = place.folder if place.rank == 0 else place.folder / f"rank{place.rank}-own"
    mine.mkdir(exist_ok=True)
    number = int(place.folder.name)
    yield from FakeJobs()._events(number, spec, Place(folder=mine))


def steady(spec, place):
    """A whole job that leaves time to be stopped at each score."""
    for event in FakeJobs()(spec, place):
        yield event
        time.sleep(0.25 if isinstance(event, Scored) else 0.01)


@pytest.fixture(scope="module")
def cluster():
    """A head without room, a node with a GPU and a licence, and a plain one."""
    from ray.cluster_utils import Cluster

    from orchestrator.executors.ray_executor import ray

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=2, num_gpus=1, resources={"licence": 1})
    made.add_node(num_cpus=2)
    ray.init(address=made.address, log_to_driver=False)
    for module in (sys.modules[__name__], small_world):
        ray.cloudpickle.register_pickle_by_value(module)
    yield made
    ray.shutdown()
    made.shutdown()


def executor(runner):
    from orchestrator.executors.ray_executor import RayExecutor

    return RayExecutor(runner=runner, spare_s=0.0)


def launch(folder: Path, trial: int, resources: ResourceSpec) -> Launch:
    return Launch(
        trial=trial, attempt=1, spec=JOB, resources=resources, folder=folder / f"{trial:04d}"
    )


def hear(runs, until, seconds=60.0):
    """Everything said until `until(said)` is true of something."""
    heard, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        heard += runs.wait(0.2)
        if any(until(said) for said in heard):
            return heard
    raise AssertionError(f"nothing of that kind came; heard {heard[-3:]}")


def first_step(trial):
    return lambda said: said.trial == trial and isinstance(said.event, Step)


def nodes_of(folder: Path, trial: int) -> list[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        files = sorted((folder / f"{trial:04d}").glob("rank[0-9]"))
        if files and len(files) == int(files[0].read_text().split()[1]):
            return [file.read_text().split()[0] for file in files]
        time.sleep(0.05)
    raise AssertionError("not all ranks began")


def planned(cluster, folder: Path, licences: int | None) -> tuple[str, str]:
    """What `mirsweep plan --address` says of a variant that needs so many licences."""
    custom = {} if licences is None else {"licence": licences}
    spec = make_sweep(2, resources=ResourceSpec(custom=custom, cpus_per_worker=0.1))
    recipe = folder / "recipe.yaml"
    recipe.write_text(dump_recipe(spec))
    words = ["plan", str(recipe), "--address", cluster.address, "--json", "--variants", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["fits"]
    return found["when"], found["reason"]


def test_gangs_lie_as_asked_and_wait_with_a_reason(cluster, tmp_path):
    runs = executor(located)
    licence = ResourceSpec(custom={"licence": 1}, gpus_per_worker=0.5, cpus_per_worker=0.5)
    assert job_slots(runs.capacity(), licence) == 1
    apart = ResourceSpec(workers=2, spread="strict-spread", cpus_per_worker=0.5)
    together = ResourceSpec(workers=2, spread="strict-pack", cpus_per_worker=0.5)
    half = ResourceSpec(gpus_per_worker=0.5, cpus_per_worker=0.5)
    for trial, resources in enumerate((licence, apart, together, half)):
        runs.start(launch(tmp_path, trial, resources))
        hear(runs, first_step(trial))
    (with_licence,) = nodes_of(tmp_path, 0)
    assert len(set(nodes_of(tmp_path, 1))) == 2
    assert len(set(nodes_of(tmp_path, 2))) == 1
    assert nodes_of(tmp_path, 3) == [with_licence]  # the other half of the only GPU
    assert sum(gpus for _, gpus in runs.free().nodes) == 0
    runs.start(launch(tmp_path, 4, ResourceSpec(custom={"licence": 1}, cpus_per_worker=0.5)))
    heard = hear(runs, lambda said: isinstance(said.event, Waiting))
    told = next(said for said in heard if isinstance(said.event, Waiting))
    assert (told.trial, told.event.reason) == (4, "needs 1 licence on one node, 0 free")
    assert planned(cluster, tmp_path, 1) == ("later", "needs 1 licence on one node, 0 free")
    assert planned(cluster, tmp_path, 2)[0] == "never"
    assert planned(cluster, tmp_path, None)[0] == "now"
    runs.stop(0, "enough")
    heard = hear(runs, first_step(4))
    assert [said.trial for said in heard if isinstance(said.event, Placed)] == [4]
    runs.close()


def test_every_trial_runs_on_the_number_of_ranks_that_the_search_chose(cluster, tmp_path):
    spec = make_sweep(5, stop=StopSpec(rule="none", infeasible_patience=0))
    space = {**spec.space, "resources": {"workers": {"choices": [1, 2, 4]}}}
    spec = spec.model_copy(update={"space": space})
    view = Controller(spec, tmp_path / "study", executor(quick), MemoryTracker()).run()
    assert {trial.workers for trial in view.trials.values()} <= {1, 2, 4}
    assert len({trial.workers for trial in view.trials.values()}) > 1
    for number, trial in view.trials.items():
        assert trial.state is TrialState.COMPLETE, trial.reason
        found = list((tmp_path / "study" / "trials" / f"{number:04d}").glob("size*"))
        assert len(found) == trial.workers
        assert {file.read_text() for file in found} == {str(trial.workers)}


def test_a_paused_trial_gives_its_place_to_the_next_and_goes_on_from_its_checkpoint(
    cluster, tmp_path
):
    stop = StopSpec(min_samples=16, min_trials=2, confidence=0.0, pause=True, reduction_factor=2)
    spec = make_sweep(5, stop=stop, resources=ResourceSpec(max_concurrent=1))
    # The third is behind until worse ones come.
    study = FakeStudy(spec, rates=[1e-2, 1.5e-2, 3e-2, 8e-2, 9e-2])
    folder = tmp_path / "study"
    view = Controller(
        spec, folder, executor(steady), MemoryTracker(), open_study=lambda *_: study
    ).run()
    records = list(read_records(folder / "events.jsonl"))
    assert 2 in [record.data["trial"] for record in records if record.kind == "thawed"]
    trial = view.trials[2]
    assert (trial.resumed, trial.attempt) == (1, 2)
    assert trial.redone == 0
    resumed = [
        record.data["event"]["resumed_samples"]
        for record in records
        if record.kind == "event"
        and record.data["trial"] == 2
        and record.data["event"]["event"] == "started"
    ]
    assert resumed[0] == 0 < resumed[1]
    assert set(study.tellings.values()) == {1}
    assert all(trial.state.final for trial in view.trials.values())


def demanded(address: str) -> list[dict[str, float]]:
    """The bundles of pending placement groups, as Ray's autoscaler is told them."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    demands = get_cluster_status(address).resource_demands.placement_group_demand
    return [dict(one.bundle) for demand in demands for one in demand.bundles_by_count]


def test_a_cluster_that_grows_sees_the_demand_and_the_job_runs_once_it_has_grown(cluster, tmp_path):
    resources = ResourceSpec(cpus_per_worker=3, autoscale=True)
    spec = make_sweep(2, stop=StopSpec(rule="none"), resources=resources)
    seen: list[object] = []

    def grow(view) -> None:
        waiting = [trial for trial in view.trials.values() if trial.waiting]
        if waiting and not seen:
            stored = load_view(tmp_path / "study").trials[waiting[0].number]
            seen.extend([stored, demanded(cluster.address)])
            cluster.add_node(num_cpus=3)

    runs = executor(quick)
    assert job_slots(runs.capacity(), resources) == 0
    view = Controller(spec, tmp_path / "study", runs, MemoryTracker(), on_change=grow).run()
    stored, bundles = seen
    assert (stored.state, stored.waiting) == (
        TrialState.QUEUED,
        "needs 3 CPUs on one node, 2 free",
    )
    assert stored.seconds == 0
    assert bundles == [{"CPU": 3.0}]
    assert [trial.state for trial in view.trials.values()] == [TrialState.COMPLETE] * 2
    assert all(trial.waiting == "" for trial in view.trials.values())
