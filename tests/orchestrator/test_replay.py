"""Replays: the same controller in virtual time; equal for equal seeds; every hour counted."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from small_world import make_sweep, score
from sweep_views import make_view
from typer.testing import CliRunner

from jobs.events import Finished, Scored, Started, Stopped
from mir.errors import ConfigError, DataError
from orchestrator.cli import app
from orchestrator.executors.simulated import SimulatedExecutor
from orchestrator.ports import Launch
from orchestrator.replay.compare import Policy, hours_to_target
from orchestrator.replay.run import replay
from orchestrator.replay.synthetic import synthetic
from orchestrator.replay.table import load_table, save_table, table_of
from orchestrator.views.replay import cells
from sweeps.recipe import load_recipe
from sweeps.spec import GuardSpec, ResourceSpec

ROOT = Path(__file__).parents[2]
REAL = ROOT / "infra" / "curves" / "real-cpu.json"


def launch(trial, attempt=1):
    spec = make_sweep().base
    resources = ResourceSpec()
    return Launch(trial=trial, attempt=attempt, spec=spec, resources=resources, folder=Path("x"))


def said(executor):
    found = []
    while heard := executor.wait(0.0):
        found += [(executor.clock(), one.trial, one.event) for one in heard]
    return found


def curve(_launch):
    return [score(samples, 3.0 - samples / 64) for samples in (0, 16, 32, 64)]


def test_time_passes_by_samples_and_jobs_run_side_by_side():
    executor = SimulatedExecutor(curve, lambda one: 1.0 + one.trial, slots=2)
    executor.start(launch(0))
    executor.start(launch(1))
    heard = said(executor)
    scores = [(at, trial) for at, trial, event in heard if isinstance(event, Scored)]
    assert sorted(scores) == [(0, 0), (0, 1), (16, 0), (32, 0), (32, 1), (64, 0), (64, 1), (128, 1)]
    ends = [(at, trial) for at, trial, event in heard if isinstance(event, Finished)]
    assert ends == [(64, 0), (128, 1)]
    assert executor.wait(1.0) == ()


def test_a_stopped_job_leaves_at_its_sample_and_goes_on_from_there():
    executor = SimulatedExecutor(curve, lambda _: 1.0)
    executor.start(launch(0))
    for _ in range(3):
        executor.wait(0.0)
    assert executor.clock() == 16
    executor.stop(0, "behind")
    ((at, _, event),) = said(executor)
    assert (at, event) == (16, Stopped(samples=16, reason="behind"))
    executor.stop(0, "again")
    executor.start(launch(0, attempt=2))
    heard = said(executor)
    assert heard[0][2] == Started(ranks=1, device="simulated", trainable={}, resumed_samples=16)
    assert [event.samples for _, _, event in heard if isinstance(event, Scored)] == [32, 64]
    assert executor.clock() == 16 + 48


def test_what_a_stopped_attempt_had_yet_to_say_is_not_heard_of_the_next():
    executor = SimulatedExecutor(curve, lambda _: 1.0)
    executor.start(launch(0))
    for _ in range(3):
        executor.wait(0.0)  # its score at 32 is due at 32 s
    executor.stop(0, "behind")
    executor.wait(0.0)
    executor.start(launch(0, attempt=2))
    events = [event for _, _, event in said(executor)]
    assert [event.samples for event in events if isinstance(event, Scored)] == [32, 64]
    assert isinstance(events[-1], Finished)


@pytest.fixture(scope="module")
def table():
    spec = make_sweep(12)
    return synthetic(spec)


def policy(table, sampler="random", rule="none", trials=12):
    study = table.spec.study.model_copy(update={"sampler": sampler})
    stop = table.spec.stop.model_copy(update={"rule": rule, "infeasible_patience": 0})
    budget = table.spec.budget.model_copy(update={"trials": trials})
    return table.spec.model_copy(update={"study": study, "stop": stop, "budget": budget})


def test_a_replay_depends_on_the_seed_alone(table):
    spec = policy(table, "gp", "median")
    assert replay(table, spec, 3, 2) == replay(table, spec, 3, 2)
    assert replay(table, spec, 3, 2) != replay(table, spec, 4, 2)


def test_what_is_to_be_found_again_is_not_a_trial_that_others_left_far_behind(table):
    guard = GuardSpec(constraints={"loss-near-best": 0.25})
    study = table.spec.study.model_copy(update={"guard": guard})
    spec = table.spec.model_copy(update={"study": study})
    lazy = [
        replace(reading, mir=-9.0, loss=3 * reading.loss) for reading in table.trials[0].readings
    ]
    trap = replace(table.trials[0], readings=tuple(lazy))
    near = replace(table, spec=spec, trials=(trap, *table.trials[1:]))
    found = replay(near, policy(near), 0, 2)
    assert found.target > 0
    assert found.best is not None and found.best > 0


def test_without_stopping_every_trial_costs_a_full_run_and_stopping_saves(table):
    full = replay(table, policy(table), 0, 2)
    assert full.ledger.used == pytest.approx(12.0)
    assert full.ledger.saved == 0
    stopped = replay(table, policy(table, rule="median"), 0, 2)
    assert stopped.ledger.stopped > 0
    assert stopped.ledger.used + stopped.ledger.saved == pytest.approx(12.0)


def test_pausing_costs_what_is_resumed_and_takes_it_off_what_was_saved(table):
    def found(pause, **budget):
        spec = policy(table, rule="median")
        stop = spec.stop.model_copy(update={"pause": pause})
        limits = spec.budget.model_copy(update=budget)
        return replay(table, spec.model_copy(update={"stop": stop, "budget": limits}), 0, 2)

    stopped, paused = found(pause=False), found(pause=True)
    assert paused.ledger.used > stopped.ledger.used
    assert paused.ledger.used + paused.ledger.saved == pytest.approx(12.0)
    rich = found(pause=True, samples=10**9)
    assert rich.ledger.used == pytest.approx(12.0)
    assert (rich.ledger.saved, rich.ledger.stopped) == (0, 0)
    assert rich.course[-1][0] <= rich.ledger.used + 1e-9
    assert rich.best <= stopped.best


def test_more_jobs_at_once_cost_the_same_hours(table):
    assert replay(table, policy(table), 0, 6).ledger.used == pytest.approx(12.0)


def test_the_course_only_improves_and_counts_hours_once(table):
    found = replay(table, policy(table), 1, 3)
    hours, values = zip(*found.course, strict=True)
    assert list(hours) == sorted(hours) and hours[-1] <= found.ledger.used + 1e-9
    assert list(values) == sorted(values, reverse=True)
    assert found.best == values[-1]
    never = replace(found, target=-9.0)
    assert never.reached is None
    assert hours_to_target(Policy("x", (never, never, found))) is None


def test_a_table_survives_its_file_and_holds_no_folders(tmp_path, table):
    path = tmp_path / "t.json"
    save_table(table, path)
    again = load_table(path)
    assert again.spec == table.spec
    assert [t.raw for t in again.trials] == [dict(t.raw) for t in table.trials]
    assert again.trials[3].readings[-1].mir == pytest.approx(table.trials[3].readings[-1].mir, 1e-5)
    path.write_text("{}")
    with pytest.raises(DataError, match="no table of curves"):
        load_table(path)


def test_a_study_without_full_curves_is_refused():
    view = make_view(2)
    with pytest.raises(ConfigError, match="2 trials ran to the end, 3 are needed"):
        table_of(view)


def test_the_shipped_curves_are_small_real_and_replay():
    assert REAL.stat().st_size < 200_000
    assert "/work" not in REAL.read_text() and "/home" not in REAL.read_text()
    found = CliRunner().invoke(
        app, ["replay", str(REAL), "--sampler", "gp", "--stop", "median", "--seeds", "2", "--json"]
    )
    assert found.exit_code == 0, found.output
    plain, chosen = json.loads(found.stdout)
    assert (plain["policy"], chosen["policy"]) == ("random, none", "gp, median")
    assert all(hours > 0 for hours in plain["hours"])


def test_the_example_of_the_readme_replays_the_quickstart(tmp_path, monkeypatch):
    table = synthetic(load_recipe(ROOT / "sweeps" / "recipes" / "quickstart.yaml"))
    with monkeypatch.context() as patch:  # the study stays
        patch.setattr("tempfile.TemporaryDirectory", lambda **_: nullcontext(tmp_path))
        replay(table, table.spec, 0, 2)
    (tmp_path / "runs").mkdir()
    (tmp_path / "study").rename(tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    lines = (ROOT / "README.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(".venv/bin/mirsweep replay "))
    found = CliRunner().invoke(app, [*line.split()[1:], "--seeds", "2"])
    assert found.exit_code == 0, found.output
    assert "gp, hyperband" in found.output
    assert (tmp_path / "replay.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ((9.0, 9.0), "reached in 0 of 2 replays"),
        ((0.5, 9.0, 9.0), "reached in 1 of 3 replays"),
        ((0.5, 0.5, 0.5, 9.0), "2.5 (2.5 to never), reached in 3 of 4 replays"),
        ((0.5, 0.5), "2.5 (2.5 to 2.5), reached in 2 of 2 replays"),
    ],
)
def test_a_line_says_in_how_many_replays_the_best_was_reached(table, best, said):
    outcome = replay(table, policy(table, trials=2), 0, 2)
    outcomes = [replace(outcome, course=((2.5, value),), target=1.0) for value in best]
    assert cells(Policy("random, none", tuple(outcomes)))[-1] == said
