"""Requests from other terminals: taken in order, carried out once, whatever runs."""

import json
import os
import socket
from contextlib import contextmanager, suppress
from random import Random
from types import SimpleNamespace

import pytest
from small_world import SAMPLES, FakeJobs, FakeStudy, Fuse, Killed, make_sweep
from sweep_views import make_spec
from typer.testing import CliRunner

import orchestrator.controller as loop
from jobs.events import Failed
from mir.errors import ClusterError, ConfigError
from orchestrator import detach
from orchestrator.cli import app
from orchestrator.control import FOLDER, Request, controlled, post, taken, waiting
from orchestrator.controller import Controller
from orchestrator.detach import LOG, detach_here, detach_on_cluster
from orchestrator.eventlog import EventLog
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.lease import HOLDER_NAME, lease
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.steering import failed_points
from orchestrator.trackers.memory import MemoryTracker
from sweeps.cube import Cube
from sweeps.space import space_of
from sweeps.spec import BudgetSpec, StopSpec


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Pretended jobs are quicker than a person: look for requests in every turn of the loop."""
    monkeypatch.setattr(loop, "POLL_S", 0.0)


class Asked(FakeJobs):
    """Jobs during which a person asks for something: asks[trial] as it begins."""

    def __init__(self, folder, asks, **fields):
        super().__init__(**fields)
        self.folder, self.asks = folder, asks

    def __call__(self, spec, place):
        for request in self.asks.pop(int(place.folder.name), ()):
            post(self.folder, request)
        return super().__call__(spec, place)


def run(folder, asks, *, trials=4, study=None, **fields):
    spec = make_sweep(trials, stop=StopSpec(rule="none", infeasible_patience=0))
    jobs = Asked(folder, asks, **fields)
    study = study or FakeStudy(spec)
    return sitting(folder, jobs, study), jobs, study


def sitting(folder, jobs, study):
    """One controller on a sweep without rules."""
    spec = study.spec.model_copy(update={"stop": StopSpec(rule="none", infeasible_patience=0)})
    return Controller(
        spec, folder, InlineExecutor(jobs), MemoryTracker(), open_study=lambda *_: study
    ).run()


def states(view):
    return [trial.state.value for _, trial in sorted(view.trials.items())]


def test_requests_are_taken_in_the_order_they_were_left(tmp_path):
    verbs = ["pause", "extend", "resume"]
    paths = [post(tmp_path, Request(verb=verb)) for verb in verbs]
    (tmp_path / FOLDER / "torn.json").write_text('{"verb": "st')
    assert [(path, request.verb) for path, request in waiting(tmp_path)] == list(
        zip(paths, verbs, strict=True)
    )
    assert not (tmp_path / FOLDER / "torn.json").exists()
    assert not taken(paths[0], 0.0)
    paths[0].unlink()
    assert taken(paths[0], 0.0)


def test_stop_saves_the_running_trial_and_the_next_run_goes_on(tmp_path):
    view, jobs, study = run(tmp_path / "s", {1: [Request(verb="stop")]})
    assert view.ended is None
    assert view.note.startswith("stopped by `mirsweep stop`")
    assert states(view) == ["complete", "paused"]
    assert not waiting(tmp_path / "s")
    view, again, _ = run(tmp_path / "s", {}, study=study)
    assert states(view) == ["complete"] * 4
    assert jobs.trained[1] + again.trained[1] == SAMPLES, "it went on from its checkpoint"


def test_a_drained_sweep_lets_its_trials_end_and_begins_none(tmp_path):
    view, _, study = run(tmp_path / "s", {1: [Request(verb="drain")]})
    assert view.ended is None
    assert states(view) == ["complete", "complete"]
    assert "drained" in view.note
    assert states(run(tmp_path / "s", {}, study=study)[0]) == ["complete"] * 4


def test_a_paused_sweep_waits_with_its_trials_saved_until_it_is_resumed(tmp_path, monkeypatch):
    seen = []

    def slept(_seconds):
        view = load_view(tmp_path / "s")
        seen.append((view.trials[1].state, view.note))
        post(tmp_path / "s", Request(verb="resume"))

    monkeypatch.setattr(loop.time, "sleep", slept)
    view, jobs, _ = run(tmp_path / "s", {1: [Request(verb="pause")]})
    assert seen[0] == (TrialState.PAUSED, "paused; `mirsweep resume` goes on")
    assert states(view) == ["complete"] * 4
    assert jobs.trained[1] == SAMPLES
    assert view.trials[1].restarts == 0


def test_a_night_on_hold_costs_nothing_of_the_hours(tmp_path, monkeypatch):
    """The clock jumps by a day while the sweep is paused, and again over a restart on hold."""
    now, nights = [0.0], []

    def clock():
        now[0] += 1.0
        return now[0]

    def slept(_seconds):
        now[0] += 86_400.0
        nights.append(now[0])
        post(tmp_path / "s", Request(verb="stop" if len(nights) == 1 else "resume"))

    monkeypatch.setattr(loop.time, "sleep", slept)
    spec = make_sweep(4, stop=StopSpec(rule="none", infeasible_patience=0), hours=1.0)
    study, asks = FakeStudy(spec), {1: [Request(verb="pause")], 2: [Request(verb="pause")]}
    for ends in (False, True):
        view = Controller(
            spec, tmp_path / "s", InlineExecutor(Asked(tmp_path / "s", asks)), MemoryTracker(),
            open_study=lambda *_: study, clock=clock,
        ).run()  # fmt: skip
        assert (view.ended is not None) is ends
    assert len(nights) == 2
    assert states(view) == ["complete"] * 4


def test_a_larger_budget_counts_at_once_and_stays_in_the_log(tmp_path):
    asks = {1: [Request(verb="extend", trials=2), Request(verb="extend", trials=1, hours=5.0)]}
    view, _, _ = run(tmp_path / "s", asks)
    assert states(view) == ["complete"] * 7
    found = load_view(tmp_path / "s").spec.budget
    assert (found.trials, found.hours) == (7, None)


@pytest.mark.parametrize("slots", [1, 2])
def test_what_a_spent_budget_cut_short_goes_on_when_it_has_grown(tmp_path, slots):
    spec = make_sweep(4, stop=StopSpec(rule="none", infeasible_patience=0))
    budget = BudgetSpec(trials=4, samples=2 * SAMPLES + 24 * slots)
    spec = spec.model_copy(update={"budget": budget})
    jobs, study, tracker = FakeJobs(), FakeStudy(spec), MemoryTracker()

    def sitting():
        executor = InlineExecutor(jobs, slots=slots, nodes=((2.0, 0.0),))
        return Controller(
            spec, tmp_path / "s", executor, tracker, open_study=lambda *_: study
        ).run()  # fmt: skip

    for _ in range(2):  # nor is anything lost by running the same command again
        view = sitting()
        assert view.note == f"the budget of {budget.samples} samples is spent"
        assert view.ended is not None
        assert states(view) == ["complete"] * 2 + ["paused"] * slots
        assert view.trials[2].reason == view.note
        assert sorted(study.told) == [0, 1]
        assert tracker.trials[2].state == "paused"
    words = ["extend", str(tmp_path / "s"), "--samples", str(2 * SAMPLES)]
    assert CliRunner().invoke(app, words).exit_code == 0
    view = sitting()
    assert states(view) == ["complete"] * 4
    assert view.spec.budget.samples == budget.samples + 2 * SAMPLES
    assert set(jobs.trained.values()) == {SAMPLES}, "they went on from their checkpoints"
    assert set(study.tellings.values()) == {1}


def test_a_larger_budget_outlasts_its_controller_until_the_recipe_has_another(tmp_path):
    def again(trials, study):
        spec = make_sweep(trials, stop=StopSpec(rule="none", infeasible_patience=0))
        return Controller(
            spec, tmp_path / "s", InlineExecutor(FakeJobs()), MemoryTracker(),
            open_study=lambda *_: study,
        ).run()  # fmt: skip

    asks = {1: [Request(verb="extend", trials=2), Request(verb="stop")]}
    view, _, study = run(tmp_path / "s", asks, trials=3)
    assert len(view.trials) == 2 and view.spec.budget.trials == 5
    view = again(3, study)
    assert len(view.trials) == view.spec.budget.trials == 5
    assert load_view(tmp_path / "s") == view
    view = again(6, study)
    assert len(view.trials) == view.spec.budget.trials == 6, "what the recipe says now counts"


def test_a_paused_sweep_still_says_so_when_its_budget_has_grown(tmp_path, monkeypatch):
    notes = []

    def slept(_seconds):
        notes.append(load_view(tmp_path / "s").note)
        verb = "extend" if len(notes) == 1 else "resume"
        post(tmp_path / "s", Request(verb=verb, trials=1))

    monkeypatch.setattr(loop.time, "sleep", slept)
    view, _, _ = run(tmp_path / "s", {1: [Request(verb="pause")]}, trials=3)
    assert notes[:2] == ["paused; `mirsweep resume` goes on"] * 2
    assert len(view.trials) == 4


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


@pytest.mark.parametrize("verb", ["stop", "drain", "pause", "resume"])
def test_what_an_earlier_controller_did_not_live_to_hear_is_not_for_the_next(tmp_path, verb):
    folder = tmp_path / "s"
    folder.mkdir()
    post(folder, Request(verb=verb))
    view, _, _ = run(folder, {})
    assert states(view) == ["complete"] * 4
    assert not waiting(folder)


def test_nor_is_what_was_meant_for_a_holder_that_died_while_the_next_waited(tmp_path, monkeypatch):
    folder = tmp_path / "s"

    @contextmanager
    def waited_for(place, wait_s):
        post(place, Request(verb="stop"))
        with lease(place, wait_s) as held:
            yield held

    monkeypatch.setattr(loop, "lease", waited_for)
    view, _, _ = run(folder, {})
    assert states(view) == ["complete"] * 4
    assert not waiting(folder)


def test_a_holder_is_seen_by_its_process(tmp_path):
    assert not controlled(tmp_path)
    holder = {"host": socket.gethostname(), "pid": os.getpid()}
    (tmp_path / HOLDER_NAME).write_text(json.dumps(holder))
    assert controlled(tmp_path)
    (tmp_path / HOLDER_NAME).write_text(json.dumps(holder | {"pid": 2**22 + 1}))
    assert not controlled(tmp_path)
    (tmp_path / HOLDER_NAME).write_text(json.dumps(holder | {"host": "elsewhere"}))
    assert controlled(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["stop"], 1, "no controller runs this study"),
        (["pause"], 1, "no controller runs this study"),
        (["extend"], 2, "nothing to add"),
        (["extend", "--hours", "1"], 2, "this sweep has no budget.hours"),
        (["extend", "--trials", "1", "--gpu-hours", "1"], 2, "has no budget.gpu_hours"),
        (["extend", "--samples", "8"], 2, "leave out --samples"),
        (["extend", "--cost", "8"], 2, "leave out --cost"),
        (["retry"], 2, "say what to try again"),
        (["retry", "--failed"], 2, "no failed trial"),
        (["enqueue", "nosuch=1"], 2, "no such parameter"),
        (["enqueue", "learning_rate"], 2, "is no NAME=VALUE"),
        (["extend", "--trials", "2"], 0, "left for the next controller"),
        (["enqueue", "learning_rate=1e-2"], 0, "left for the next controller"),
    ],
)
def test_verbs_say_what_they_did_or_why_not(words, code, message, tmp_path):
    folder = tmp_path / "s"
    run(folder, {}, trials=1)
    found = CliRunner().invoke(app, [words[0], str(folder), *words[1:]])
    assert found.exit_code == code, found.output
    assert message in found.output
    assert len(waiting(folder)) == (code == 0)


def test_what_was_left_is_carried_out_by_the_next_controller(tmp_path):
    _, _, study = run(tmp_path / "s", {}, trials=1)
    left = ["extend", str(tmp_path / "s"), "--trials", "2", "--json"]
    found = CliRunner().invoke(app, left)
    assert json.loads(found.stdout)["taken"] is False
    assert len(run(tmp_path / "s", {}, trials=1, study=study)[0].trials) == 3


def test_a_detached_command_runs_in_a_session_of_its_own(tmp_path):
    with detach_here(["--version"], tmp_path / "s") as started:
        assert os.getsid(started.pid) == started.pid
    assert (tmp_path / "s" / LOG).read_text().startswith("mirsweep ")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("noise\nConnection refused", r"http://h:8.*Connection refused.*--include-dashboard=true"),
        ("Authentication required: no token\n\nlong", r"asks for a token.*RAY_AUTH_MODE=token"),
        ("The Ray jobs CLI & SDK require the ray[default]", r"pip install 'ray\[default\]'"),
        ("RuntimeError: failed with status code 404: x.", r"job server does not run"),
    ],
)
def test_a_cluster_that_takes_no_job_is_named_with_a_remedy(said, message, monkeypatch, tmp_path):
    refused = SimpleNamespace(returncode=1, stdout="", stderr=said)
    monkeypatch.setattr(detach.subprocess, "run", lambda *_args, **_options: refused)
    with pytest.raises(ClusterError, match=message) as error:
        detach_on_cluster(["run", "r.yaml"], "http://h:8265", tmp_path)
    assert "\n" not in str(error.value)


def test_a_job_for_a_cluster_finds_mirsweep_and_its_folder_there(monkeypatch, tmp_path):
    asked = []

    def run(command, **_options):
        asked.append(command)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(detach.subprocess, "run", run)
    folder = tmp_path / "a b"
    job = detach_on_cluster(["run", "my r.yaml"], "http://h:8265", folder)
    command = asked[0]
    assert command[command.index("--submission-id") + 1] == job
    assert job.replace("-", "").replace(".", "").replace("_", "").isalnum()
    shell = command[command.index("--") + 1 :]
    assert shell[:2] == ["sh", "-c"]
    assert folder.is_dir()
    assert shell[2].endswith("mirsweep run 'my r.yaml' --address auto")
