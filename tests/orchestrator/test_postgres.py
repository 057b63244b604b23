"""Optuna's study in a real PostgreSQL: it goes away and comes back, and its errors are readable."""

from __future__ import annotations

import pytest
from postgres_server import PASSWORD, running
from small_world import FakeJobs, make_sweep
from tracking_server import Paced, Sweep, free_port
from typer.testing import CliRunner

from mir.errors import ClusterError
from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.mend import rebuild
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.trackers.mlflow_tracker import MlflowTracker
from sweeps.recipe import dump_recipe
from sweeps.study import Study

pytestmark = pytest.mark.slow
TOLD = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED"}


@pytest.fixture(scope="module")
def server():
    with running() as made:
        yield made


@pytest.fixture
def spec(server, request):
    """A sweep of eight trials, in a study of the test's own name."""
    return of(server.url, request.node.name[:40])


def of(url, name):
    made = make_sweep(8)
    study = made.study.model_copy(update={"storage": url, "sampler": "tpe", "startup_trials": 2})
    return made.model_copy(update={"name": name, "study": study})


def controller(spec, folder, tracker=None):
    executor = InlineExecutor(FakeJobs(), nodes=((1.0, 0.0),))
    return Controller(spec, folder, executor, tracker or MemoryTracker())


def untold(view, spec):
    """What Optuna has otherwise than the log."""
    trials = Study(spec, None)._trials()
    wrong = [] if len(trials) == len(view.trials) else [f"{len(trials)} trials"]
    for trial, mine in zip(trials, view.trials.values(), strict=False):
        counting = [s.samples for s, ok in zip(mine.scores, mine.counted, strict=True) if ok]
        told = (trial.state.name, sorted(trial.intermediate_values))
        ended = trial.state.name != "COMPLETE" or trial.value == mine.objective
        if told != (TOLD[mine.state], counting) or not ended:
            wrong.append(f"trial {trial.number}: {told} {trial.value}")
    return wrong


def test_restarted_in_the_middle_it_holds_up_no_job_and_hears_everything(
    server, spec, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("orchestrator.trackers.background.BACKOFF_S", (0.1,))
    jobs, folder = Paced(0.05), tmp_path / "study"
    sweep = Sweep(spec, folder, jobs, tracker=MemoryTracker(), slots=2, patience_s=0.25)
    for _ in range(2):
        at = sweep.when(lambda view: running_of(view) == 2)
        server.kill()
        begun = [number for number, trial in at.trials.items() if not trial.state.final]
        # Both run to their end, and are judged and scored meanwhile; no new one can be asked for.
        away = sweep.when(lambda view, mine=begun: all(view.trials[n].state.final for n in mine))
        assert away.trials.keys() <= {*at.trials, max(at.trials) + 1}
        assert all(len(away.trials[n].scores) > len(at.trials[n].scores) for n in begun)
        server.start()
    view = sweep.over()
    assert caplog.text.count("training goes on, trying again") >= 2
    assert len(view.trials) == 8
    assert jobs.ran.total() == 8, "none was run again"
    assert untold(view, spec) == []


def running_of(view):
    """How many trials run that have far to go."""
    running = [t for t in view.trials.values() if t.state is TrialState.RUNNING]
    return sum(len(t.scores) <= 1 for t in running)


def test_begun_while_it_is_away_the_same_command_goes_on_later(server, spec, tmp_path):
    folder = tmp_path / "study"
    server.kill()
    with pytest.raises(ClusterError, match="run the same command again") as caught:
        controller(spec, folder).run()
    server.start()
    assert "\n" not in str(caught.value) and PASSWORD not in str(caught.value)
    view = controller(spec, folder).run()
    assert len(view.trials) == 8
    assert untold(view, spec) == []


def test_it_is_made_again_from_the_log_and_shared_by_no_other_folder(spec, tmp_path, monkeypatch):
    view = controller(spec, tmp_path / "study").run()
    with pytest.raises(ClusterError, match="another folder's") as caught:
        controller(spec, tmp_path / "other").run()
    assert PASSWORD not in str(caught.value)
    assert untold(view, spec) == []
    Study(spec, None).ask(8, {})
    assert untold(view, spec) != []
    with pytest.raises(ClusterError, match="PGPASSWORD") as caught:
        rebuild(tmp_path / "study", None)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    rebuild(tmp_path / "study", None)
    assert untold(view, spec) == []


@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
def test_nothing_that_is_kept_or_shown_has_its_password(spec, tmp_path):
    folder = tmp_path / "study"
    controller(spec, folder, MlflowTracker()).run()
    (tmp_path / "recipe.yaml").write_text(dump_recipe(spec))
    for words in (["report", str(folder)], ["plan", str(tmp_path / "recipe.yaml"), "--json"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert PASSWORD not in done.output
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert {"events.jsonl", "sweep.yaml", "index.html"} <= {path.name for path in kept}
    assert [path for path in kept if PASSWORD.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("wrong", ["password", "port"])
@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
def test_what_cannot_be_reached_is_said_in_one_line(wrong, server, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    secret = "mistaken" if wrong == "password" else PASSWORD
    port = free_port() if wrong == "port" else server.port
    url = server.url.replace(PASSWORD, secret).replace(str(server.port), str(port))
    (tmp_path / "recipe.yaml").write_text(dump_recipe(of(url, "unreachable")))
    done = CliRunner().invoke(app, ["run", "recipe.yaml", "--executor", "inline"])
    assert done.exit_code != 0
    (line,) = [said for said in done.stderr.splitlines() if "study storage" in said]
    assert f"127.0.0.1:{port}/postgres" in line and "run the same command again" in line
    assert secret not in done.output + caplog.text
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "recipe.yaml"]
    assert [path for path in kept if secret.encode() in path.read_bytes()] == []
