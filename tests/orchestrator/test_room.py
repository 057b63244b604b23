"""Room for gangs of one size and of several: seats, queues with reasons, hours, plans."""

from __future__ import annotations

import itertools
import json
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import FakeJobs, FakeStudy, make_sweep
from typer.testing import CliRunner

from mir.errors import ConfigError
from orchestrator.budget import devices, spent
from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.journal import Journal
from orchestrator.ledger import ledger
from orchestrator.placement import Fit, fit, fits, job_slots, left, why_not, why_waiting
from orchestrator.ports import Capacity, JobEvent, Placed, Waiting
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.views.as_json import trial_json
from orchestrator.views.leaderboard import ending
from orchestrator.views.plain import news
from orchestrator.views.preview import sampled
from sweeps.spec import BudgetSpec, ResourceSpec, StopSpec

SPREADS = ("pack", "spread", "strict-pack", "strict-spread")


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from(SPREADS),
)
def test_seating_equal_gangs_one_by_one_comes_to_their_number(cpus, workers, spread):
    capacity = Capacity(nodes=tuple((float(n), 0.0) for n in cpus))
    gang = ResourceSpec(workers=workers, spread=spread)
    slots = job_slots(capacity, gang)
    assert fits(capacity, [gang] * slots)
    if spread != "strict-spread":  # the seats are taken greedily, and there may be a better way
        assert not fits(capacity, [gang] * (slots + 1))
    assert (why_not(capacity, gang) is None) == (slots > 0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(1, 3))
def test_a_gang_each_on_another_node_fits_where_some_choice_of_nodes_does(cpus, workers):
    capacity = Capacity(nodes=tuple((float(n), 0.0) for n in cpus))
    gang = ResourceSpec(workers=workers, spread="strict-spread")
    nodes = range(len(cpus))
    there = any(all(cpus[i] for i in chosen) for chosen in itertools.combinations(nodes, workers))
    assert (job_slots(capacity, gang) > 0) == there


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(SPREADS)), max_size=6))
def test_nothing_is_seated_twice(gangs):
    capacity = Capacity(nodes=((3.0, 1.0), (2.0, 0.0)), custom=({"licence": 2.0}, {}))
    specs = [ResourceSpec(workers=n, spread=spread) for n, spread in gangs]
    seated = []
    for spec in specs:
        if fits(capacity, [*seated, spec]):
            seated.append(spec)
    free = left(capacity, seated)
    assert sum(cpus for cpus, _ in free.nodes) == 5 - sum(spec.workers for spec in seated)
    assert all(cpus >= 0 for cpus, _ in free.nodes)
    assert free.custom == ({"licence": 2.0}, {})


@pytest.mark.parametrize("spread", SPREADS)
def test_nothing_fits_a_cluster_without_nodes(spread):
    gang = ResourceSpec(spread=spread)
    nothing = Capacity(nodes=())
    assert not fits(nothing, [gang])
    assert job_slots(nothing, gang) == 0
    assert why_waiting(nothing, gang) == "needs 1 CPUs on one node, 0 free"


def test_custom_resources_and_fractions_are_counted_by_node():
    capacity = Capacity(nodes=((8.0, 1.0), (8.0, 1.0)), custom=({"licence": 1.0}, {}))
    assert job_slots(capacity, ResourceSpec(custom={"licence": 1})) == 1
    assert job_slots(capacity, ResourceSpec(custom={"licence": 0.25})) == 4
    assert job_slots(capacity, ResourceSpec(gpus_per_worker=0.25, workers=2)) == 4
    assert "needs 2 licence on one node, largest node has 1" in str(
        why_not(capacity, ResourceSpec(custom={"licence": 2}))
    )
    assert why_not(capacity, ResourceSpec(custom={"antenna": 1}))
    assert why_not(capacity, ResourceSpec(workers=3, spread="strict-spread"))
    assert why_not(capacity, ResourceSpec(workers=9, spread="strict-pack"))
    assert why_not(capacity, ResourceSpec(workers=9)) is None


@pytest.mark.parametrize(
    ("resources", "free", "expected"),
    [
        (ResourceSpec(gpus_per_worker=4), (8.0, 4.0), Fit("now")),
        (
            ResourceSpec(gpus_per_worker=4),
            (8.0, 2.0),
            Fit("later", "needs 4 GPUs on one node, 2 free"),
        ),
        (
            ResourceSpec(workers=3),
            (2.0, 0.0),
            Fit("later", "needs 3 workers of 1 CPUs, room for 2 free"),
        ),
        (
            ResourceSpec(gpus_per_worker=8),
            (8.0, 4.0),
            Fit("never", "a worker needs 8 GPUs on one node, largest node has 4"),
        ),
    ],
)
def test_when_a_job_fits(resources, free, expected):
    assert fit(Capacity(nodes=((8.0, 4.0),)), Capacity(nodes=(free,)), resources) == expected


def test_on_a_cluster_that_grows_nothing_is_never():
    found = fit(Capacity(nodes=()), Capacity(nodes=()), ResourceSpec(autoscale=True))
    assert found.when == "later"
    assert found.reason.startswith("once the cluster has grown: ")


def sized(trials, choices, **fields):
    spec = make_sweep(trials, stop=StopSpec(rule="none", infeasible_patience=0))
    space = {**spec.space, "resources": {"workers": {"choices": choices}}}
    return spec.model_copy(update={"space": space, **fields})


def run(folder, spec, sizes, cpus=4.0, jobs=None, wrap=lambda executor: executor, now=0.0):
    study = FakeStudy(spec, sizes=sizes)
    clock = itertools.count(now, 1.0)
    executor = InlineExecutor(jobs or FakeJobs(), slots=99, nodes=((cpus, 0.0),))
    return Controller(
        spec, folder / "study", wrap(executor), MemoryTracker(),
        open_study=lambda *_: study, clock=lambda: float(next(clock)),
    ).run()  # fmt: skip


class Watched:
    """An executor that notes what runs at once."""

    def __init__(self, inner):
        self.inner, self.at_once, self.now = inner, [], {}

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def start(self, launch):
        self.now[launch.trial] = launch.resources.workers
        self.at_once.append(dict(self.now))
        self.inner.start(launch)

    def wait(self, timeout_s):
        events = self.inner.wait(timeout_s)
        for said in events:
            if said.event.event in ("finished", "failed", "stopped"):
                del self.now[said.trial]
        return events


def test_gangs_of_several_sizes_fill_the_cluster_and_a_large_one_is_not_overtaken(tmp_path):
    made = []

    def watched(executor):
        made.append(Watched(executor))
        return made[0]

    sizes = (1, 1, 4, 1, 1, 4, 1)
    view = run(tmp_path, sized(7, [1, 4]), sizes, cpus=5.0, wrap=watched)
    assert all(trial.state is TrialState.COMPLETE for trial in view.trials.values())
    assert tuple(view.trials[n].workers for n in range(7)) == sizes
    assert max(sum(running.values()) for running in made[0].at_once) == 5
    started = [max(running) for running in made[0].at_once]
    assert started == sorted(started)
    log = read_records(tmp_path / "study" / "events.jsonl")
    waits = [record.data for record in log if record.kind == "waits"]
    assert waits[0] == {"trial": 2, "reason": "needs 4 workers of 1 CPUs, room for 3 free"}
    assert all(trial.waiting == "" for trial in view.trials.values())


def test_at_most_so_many_at_once_whatever_their_size(tmp_path):
    spec = sized(4, [1, 2], resources=ResourceSpec(max_concurrent=2))
    made = []

    def watched(executor):
        made.append(Watched(executor))
        return made[0]

    run(tmp_path, spec, (1, 2), wrap=watched)
    assert max(len(running) for running in made[0].at_once) == 2


def test_a_size_that_never_fits_is_refused_by_its_number(tmp_path):
    words = r"space\.resources\.workers: 8: resources: a job needs 8 workers"
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, sized(2, [1, 8]), (1,))
    assert not (tmp_path / "study").exists()


def test_hours_count_the_ranks_that_each_trial_had(tmp_path):
    view = run(tmp_path, sized(2, [1, 4]), (1, 4), cpus=4.0)
    seconds = {n: trial.seconds for n, trial in view.trials.items()}
    used = ledger(view, view.updated).used
    assert used == pytest.approx((seconds[0] * 1 + seconds[1] * 4) / 3600)
    assert devices(view.spec.resources, 4) == 4
    limited = view.spec.model_copy(update={"budget": BudgetSpec(trials=2, gpu_hours=used * 1.01)})
    from dataclasses import replace

    assert spent(replace(view, spec=limited), view.updated) is None
    less = view.spec.model_copy(update={"budget": BudgetSpec(trials=2, gpu_hours=used * 0.99)})
    assert "core-hours is spent" in str(spent(replace(view, spec=less), view.updated))


class Crowded(Watched):
    """An executor whose cluster is taken by others when the first job comes."""

    def __init__(self, inner):
        super().__init__(inner)
        self.said = [Waiting("needs 1 CPUs on one node, 0 free"), Placed()]

    def wait(self, timeout_s):
        if self.now and self.said:
            return (JobEvent(trial=0, attempt=1, event=self.said.pop(0)),)
        return super().wait(timeout_s)


def test_a_job_that_its_executor_cannot_place_is_queued_with_the_reason_and_costs_nothing(tmp_path):
    seen = []

    def crowded(executor):
        return Crowded(executor)

    spec = make_sweep(1)
    study = FakeStudy(spec)
    clock = itertools.count(0.0, 10.0)
    executor = crowded(InlineExecutor(FakeJobs(), nodes=((1.0, 0.0),)))
    import orchestrator.screen as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHOW_S", 0.0)
        patch.setattr(module, "SHOW_SHARE", 1e9)
        view = Controller(
            spec, tmp_path / "study", executor, MemoryTracker(), seen.append,
            open_study=lambda *_: study, clock=lambda: float(next(clock)),
        ).run()  # fmt: skip
    waiting = next(one for one in seen if one.trials and one.trials[0].waiting)
    trial = waiting.trials[0]
    assert (trial.state, trial.launched) == (TrialState.QUEUED, None)
    assert ending(trial) == "waiting: needs 1 CPUs on one node, 0 free"
    assert trial_json(trial, tmp_path)["waiting"] == "needs 1 CPUs on one node, 0 free"
    assert "trial 0 waiting: needs 1 CPUs on one node, 0 free" in list(news(None, waiting))
    placed = next(
        r for r in read_records(tmp_path / "study" / "events.jsonl") if r.kind == "placed"
    )
    assert view.trials[0].state is TrialState.COMPLETE
    assert view.trials[0].seconds == view.trials[0].ended - placed.time


def test_of_a_cluster_that_grows_one_job_beyond_its_size_is_asked_for(tmp_path):
    resources = ResourceSpec(cpus_per_worker=1, autoscale=True)
    spec = make_sweep(4, stop=StopSpec(rule="none"), resources=resources)

    made = Watched(InlineExecutor(FakeJobs(), slots=99, nodes=((1.0, 0.0),)))
    Controller(
        spec, tmp_path / "study", made, MemoryTracker(), open_study=lambda *_: FakeStudy(spec)
    ).run()
    assert max(len(running) for running in made.at_once) == 2


def test_plan_says_of_each_variant_whether_it_fits(tmp_path):
    import yaml

    spec = sized(4, [1, 4096])
    recipe = tmp_path / "r.yaml"
    tree = spec.model_dump(mode="json")
    tree["base"]["optim"] |= {"global_batch": 4096, "samples": 8192}
    recipe.write_text(yaml.safe_dump(tree))
    told = CliRunner().invoke(app, ["plan", str(recipe), "--json", "--variants", "9"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    by_size = {v["workers"]: f for v, f in zip(found["variants"], found["fits"], strict=True)}
    assert by_size[1] == {"when": "now", "reason": ""}
    assert by_size[4096]["when"] == "never"
    assert "4096 workers" in by_size[4096]["reason"]
    text = CliRunner().invoke(app, ["plan", str(recipe), "--variants", "9"]).output
    assert "fits" in text
    assert "1 or 4096 ranks of 1 CPU" in text


def test_plan_shows_a_variant_that_is_no_valid_job_with_the_reason():
    spec = sized(4, [1, 8])
    space = {**spec.space, "optim": {"global_batch": {"choices": [8, 12]}}}
    drawn = sampled(spec.model_copy(update={"space": space}), 30)
    whole = Capacity(nodes=((64.0, 0.0),))
    for variant in drawn:
        found = variant.fit(spec.resources, whole, whole)
        split = variant.shown.get("global_batch") or variant.shown["optim.global_batch"]
        bad = (split, variant.workers) == (12, 8)
        assert found.when == ("never" if bad else "now")
        assert ("12 cannot be divided over 8 ranks" in found.reason) == bad
    assert any(variant.refused for variant in drawn)


def test_a_reason_to_wait_names_what_is_short():
    free = Capacity(nodes=((4.0, 1.0), (4.0, 2.0)))
    assert why_waiting(free, ResourceSpec()) == "the cluster has room and has not placed it yet"
    assert why_waiting(free, ResourceSpec(gpus_per_worker=4)) == "needs 4 GPUs on one node, 2 free"
    packed = ResourceSpec(workers=8, spread="strict-pack")
    assert why_waiting(free, packed) == (
        "needs 8 workers of 1 CPUs, all on one node, room for 4 free"
    )


def test_status_shows_what_a_queued_trial_waits_for(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "study"
    folder.mkdir()
    spec = sized(2, [1, 4])
    study = FakeStudy(spec, sizes=(4,))
    with closing(Journal(folder)) as journal:
        journal.session(spec)
        journal.asked(study.ask(0, {}))
        for _ in range(2):
            journal.waits(0, "needs 4 GPUs on one node, 2 free")
    records = list(read_records(folder / "events.jsonl"))
    assert [record.kind for record in records] == ["session", "asked", "waits"]  # said once
    text = CliRunner().invoke(app, ["status", str(folder)]).output
    assert "queued" in text
    assert "waiting: needs 4 GPUs on one node, 2 free" in " ".join(text.split())
    shown = CliRunner().invoke(app, ["show", str(folder), "0"]).output
    assert "waiting: needs 4 GPUs on one node, 2 free" in shown
    told = json.loads(CliRunner().invoke(app, ["status", str(folder), "--json"]).stdout)
    (trial,) = told["trials"]
    assert (trial["workers"], trial["waiting"]) == (4, "needs 4 GPUs on one node, 2 free")
