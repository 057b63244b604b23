"""Several objectives: the front holds what nobody beats, and the search is told all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_world import FakeJobs, make_sweep
from sweep_views import make_trial, make_view

from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.front import also, pareto
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.views.as_json import sweep_json
from sweeps.cube import Cube
from sweeps.samplers import SAMPLERS, make_sampler
from sweeps.scalar import scalarised
from sweeps.space import space_of
from sweeps.spec import StudySpec
from sweeps.study import Study
from sweeps.told import Told


def with_also(view, *names):
    study = view.spec.study.model_copy(update={"also": names})
    return replace(view, spec=view.spec.model_copy(update={"study": study}))


def test_the_front_holds_what_nobody_beats_in_everything():
    cheap = replace(make_trial(0, quality=0.2), seconds=10.0)
    good = replace(make_trial(1, quality=1.0, moca=True), seconds=90.0)
    beaten = replace(make_trial(2, quality=0.1), seconds=95.0)
    stopped = replace(good, number=3, state=TrialState.PRUNED)
    trap = replace(cheap, number=4, seconds=1.0, feasible=False)  # best of all, and blind
    trials = (cheap, good, beaten, stopped, trap)
    view = replace(make_view(), trials={t.number: t for t in trials})
    assert pareto(view) == []
    view = with_also(view, "device-hours")
    assert pareto(view) == [0, 1]
    assert sweep_json(view, view.updated, Path("study"))["pareto"] == [0, 1]


def test_hours_are_those_of_a_full_run_and_the_gap_counts_upwards():
    half = replace(make_trial(0, samples=2048), seconds=1800.0)
    view = with_also(make_view(), "device-hours", "gap")
    hours, gap = also(half, view.spec)
    assert hours == pytest.approx(1.0)
    assert gap == -half.scores[-1].guard.gap


def test_the_study_hears_every_objective(tmp_path):
    spec = make_sweep(4)
    study = spec.study.model_copy(update={"also": ("validation-loss",), "sampler": "nsga2"})
    spec = spec.model_copy(update={"study": study})
    opened = []

    def open_study(spec, folder):
        opened.append(Study(spec, folder))
        return opened[-1]

    Controller(
        spec, tmp_path / "s", InlineExecutor(FakeJobs()), MemoryTracker(), open_study=open_study
    ).run()
    known = opened[-1]._told(99)
    assert [t.values[1:] for t in known if t.state == "complete"] == [(2.0,)] * sum(
        t.state == "complete" for t in known
    )


def told(number, *values):
    return Told(number=number, raw={}, state="complete", values=values, errors=(0.1,))


def test_a_norm_keeps_the_order_of_what_beats_what():
    trials = [told(0, 1.0, 5.0), told(1, 2.0, 6.0), told(2, 5.0, 1.0), told(3, 9.0, 9.0), told(4)]
    firsts = set()
    for seed in range(30):
        norms = scalarised(trials, np.random.default_rng(seed))
        values = [t.values[0] for t in norms[:4]]
        assert values[0] < values[1] < values[3] and values[2] < values[3]
        assert norms[4].values == () and norms[0].errors[0] >= 0
        firsts.add(int(np.argmin(values)))
    assert firsts == {0, 2}, "other weights, other winners: both ends of the front"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_several_objectives(sampler):
    cube = Cube(space_of(make_sweep()))
    spec = StudySpec(sampler=sampler, also=("gap",), startup_trials=2, grid_levels=9)
    known = [
        replace(told(n, float(n), -float(n)), raw=cube.raw([n / 8]), errors=(0.1,))
        for n in range(6)
    ]
    first = make_sampler(cube, spec).propose(6, known)
    assert first == make_sampler(cube, spec).propose(6, known)
    assert list(first) == ["optim.learning_rate"]
