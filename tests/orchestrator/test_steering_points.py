"""Points that people add to a sweep that runs, once each."""

from contextlib import suppress
from random import Random

import pytest
from small_world import FakeStudy, Fuse, Killed, make_sweep
from steered_sweep import Asked, run, sitting, states
from sweep_views import make_spec

import orchestrator.controller as loop
from jobs.events import Failed
from mir.errors import ConfigError
from orchestrator.control import Request, waiting
from orchestrator.eventlog import EventLog
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.steering import failed_points
from sweeps.cube import Cube
from sweeps.space import space_of


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Pretended jobs are quicker than a person: look for requests in every turn of the loop."""
    monkeypatch.setattr(loop, "POLL_S", 0.0)


def test_failed_points_are_tried_again_once_as_new_trials(tmp_path):
    broken = Failed(kind="diverged", reason="loss is nan")
    asks = {3: [Request(verb="retry"), Request(verb="retry")]}
    view, _, _ = run(tmp_path / "s", asks, failures={1: [broken]})
    assert states(view) == ["complete", "failed", "complete", "complete", "complete"]
    assert view.trials[4].params == view.trials[1].params


def tried(number, raw, spec, state=TrialState.FAILED):
    job, shown = space_of(spec).job(raw)
    return TrialView(number=number, job=job, params=shown, raw=dict(raw), state=state)


def test_a_mixture_counts_as_retried_though_its_weights_have_moved_in_their_last_bits():
    spec = make_spec()
    space, chance, moved = space_of(spec), Random(0), 0
    cube = Cube(space)
    for _ in range(50):
        first = tried(0, cube.raw([chance.random() for _ in range(cube.dimensions)]), spec)
        again = tried(1, space.encode(first.params), spec, TrialState.COMPLETE)
        moved += first.params != again.params
        assert failed_points(SweepView(spec=spec, trials={0: first})) == [first.params]
        assert failed_points(SweepView(spec=spec, trials={0: first, 1: again})) == []
        assert failed_points(SweepView(spec=spec, trials={0: first}, queue=(again.raw,))) == []
    assert moved


def test_a_failed_point_that_is_outside_the_space_ends_no_controller(tmp_path, monkeypatch, caplog):
    def outside(_space, shown):
        raise ConfigError("mixture: weights sum to 0.9 instead of 1.")

    monkeypatch.setattr("sweeps.space.Space.encode", outside)
    view, _, _ = run(tmp_path / "s", {1: [Request(verb="retry")]}, failures={0: [DIVERGED]})
    assert states(view) == ["failed", "complete", "complete", "complete"]
    assert "a point was refused: mixture: weights sum" in caplog.text


def test_an_enqueued_point_comes_next(tmp_path):
    asks = {0: [Request(verb="enqueue", point={"learning_rate": 0.0125})]}
    view, _, _ = run(tmp_path / "s", asks)
    assert view.trials[1].params["learning_rate"] == 0.0125
    assert len(view.trials) == 5


POINT = {"learning_rate": 0.0125}
DIVERGED = Failed(kind="diverged", reason="loss is nan")


def test_a_request_counts_once_wherever_its_controller_is_killed(tmp_path, monkeypatch):
    append, fuse = EventLog.append, Fuse()

    def burning(log, *args, **kwargs):
        record = append(log, *args, **kwargs)
        fuse()
        return record

    monkeypatch.setattr(EventLog, "append", burning)
    for burns in range(1000):
        folder, study = tmp_path / str(burns), FakeStudy(make_sweep(3))
        verbs = [{"verb": "extend", "trials": 2}, {"verb": "enqueue", "point": POINT}]
        requests = [Request(verb="retry"), *map(Request.model_validate, verbs)]
        jobs = Asked(folder, {1: requests}, failures={0: [DIVERGED] * 9})
        fuse.left = burns
        view = None
        while view is None:
            with suppress(Killed):
                view = sitting(folder, jobs, study)
        burnt = fuse.left is None
        fuse.left = None
        assert view.spec.budget.trials == 3 + 1 + 2 + 1, burns
        points = [trial.params["learning_rate"] for trial in view.trials.values()]
        assert points.count(POINT["learning_rate"]) == 1, burns
        assert points.count(points[0]) == 2, burns
        assert not waiting(folder)
        again = sitting(folder, jobs, study)
        assert again.trials == view.trials
        if not burnt:
            break
