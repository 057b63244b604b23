"""`mirsweep run` and `mirsweep train` from the command line to what lies in the folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_world import SAMPLES, FakeJobs, make_sweep, score
from typer.testing import CliRunner, Result

from jobs.events import Event, Failed, Finished, Started, Step, Stopped
from jobs.place import Place
from jobs.spec import JobSpec
from orchestrator.cli import app
from orchestrator.executors.inline import InlineExecutor
from orchestrator.executors.scores import read_scores
from orchestrator.failures import INTERRUPTED
from orchestrator.fold import load_view
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.views.summary import program
from sweeps.recipe import dump_job, dump_recipe, load_job

TRIALS = 3


@pytest.fixture
def jobs() -> FakeJobs:
    """What the sweep's trials do; a test may script their failures."""
    return FakeJobs()


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: FakeJobs) -> Path:
    """A recipe whose jobs take microseconds, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mirsweep", "run", "small.yaml"])
    monkeypatch.setattr(
        "orchestrator.commands.run._executor", lambda name, address: InlineExecutor(jobs)
    )
    monkeypatch.setattr("orchestrator.trackers.mlflow_tracker.MlflowTracker", MemoryTracker)
    path = tmp_path / "small.yaml"
    path.write_text(dump_recipe(make_sweep(TRIALS)))
    return path


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_run_ends_with_leaderboard_best_recipe_report_and_commands(recipe: Path) -> None:
    done = invoke("run", str(recipe))
    assert done.exit_code == 0, done.stderr
    folder = Path("runs/small")
    best = load_job(folder / "best.yaml")
    view = load_view(folder)
    assert best in [trial.job for trial in view.trials.values()]
    assert (folder / "report" / "index.html").exists()
    assert (folder / "report" / "mir.png").exists()
    assert "trial 0 running: learning_rate" in done.output
    assert f"3 of {TRIALS} trials finished" in done.output
    assert "★" in done.output
    assert f"mlflow ui --backend-store-uri sqlite:///{folder.resolve()}/mlflow.db" in done.output
    assert "mirsweep train runs/small/best.yaml" in done.output


def test_run_names_the_command_with_which_trials_go_on_that_a_spent_budget_cut_short(
    recipe: Path,
) -> None:
    done = invoke("run", str(recipe), "--set", f"budget.samples={SAMPLES + 1}")
    assert done.exit_code == 0, done.stderr
    assert "cut short       1 trial; " in done.output
    assert "mirsweep extend runs/small --samples N`, then the same `run`" in done.output
    assert "cut short" not in invoke("run", str(recipe)).output


@pytest.mark.parametrize("more", [("--trials", "5"), ("--set", "budget.trials=5")])
def test_more_trials_than_a_grid_has_are_refused_on_the_command_line_too(
    recipe: Path, more: tuple[str, str]
) -> None:
    small = make_sweep(TRIALS)
    grid = small.study.model_copy(update={"sampler": "grid"})
    recipe.write_text(dump_recipe(small.model_copy(update={"study": grid})))
    done = invoke("run", str(recipe), *more)
    assert done.exit_code == 2
    assert "5 is more than the grid's 3 points and the start: lower it to 4" in done.stderr


def test_run_json_is_alone_on_stdout(recipe: Path) -> None:
    done = invoke("run", str(recipe), "--json", "--folder", "there")
    told = json.loads(done.stdout)
    assert told["trials_finished"] == TRIALS
    assert Path(told["report"]) == Path("there/report/index.html")
    assert "trial 0 running" in done.stderr


def test_interrupted_run_says_how_to_go_on_and_goes_on(recipe: Path, jobs: FakeJobs) -> None:
    class Interrupted(FakeJobs):
        def __call__(self, spec: JobSpec, place: Place) -> Iterator[Event]:
            for event in super().__call__(spec, place):
                if isinstance(event, Step) and place.folder.name == "0001":
                    os.kill(os.getpid(), signal.SIGINT)
                yield event

    jobs.__class__ = Interrupted
    done = invoke("run", str(recipe))
    assert done.exit_code == INTERRUPTED, done.output
    assert "interrupted by SIGINT" in done.stderr
    assert "mirsweep run small.yaml" in done.stderr.splitlines()[-1]
    assert not Path("runs/small/best.yaml").exists()
    jobs.__class__ = FakeJobs
    again = invoke("run", str(recipe))
    assert again.exit_code == 0, again.stderr
    assert "going on: 1 of 3 trials finished" in again.output
    assert jobs.ran[0] == 1
    assert jobs.trained[1] == SAMPLES


def test_a_sweep_without_a_score_that_counts_exits_with_1(recipe: Path, jobs: FakeJobs) -> None:
    for number in range(TRIALS):
        jobs.failures[number] = [Failed(kind="diverged", reason="loss is nan at step 5")]
    done = invoke("run", str(recipe), "--trials", "1")
    assert done.exit_code == 1
    assert "no trial finished with a score that counts" in done.stderr
    assert Path("runs/small/report/index.html").exists()


def test_jobs_that_all_find_their_settings_wrong_exit_with_2(recipe: Path, jobs: FakeJobs) -> None:
    for number in range(TRIALS):
        jobs.failures[number] = [Failed(kind="bad-data", reason="images/7.png: not an image")]
    done = invoke("run", str(recipe), "--set", "stop.rule=none")
    assert done.exit_code == 2
    assert "images/7.png: not an image" in done.stderr.splitlines()[-1]


def test_more_workers_than_the_cluster_has_leave_nothing_behind(recipe: Path) -> None:
    done = invoke(
        "run",
        str(recipe),
        "--set",
        "resources.workers=4096",
        "--set",
        "base.optim.global_batch=4096",
    )
    assert done.exit_code == 2
    assert "4096 workers" in done.stderr
    assert not Path("runs/small").exists()


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (Finished(samples=4, seconds=1.0), 0),
        (Failed(kind="diverged", reason="loss is nan"), 1),
        (Failed(kind="bad-data", reason="x.png: not an image"), 2),
        (Stopped(samples=2, reason="interrupted"), INTERRUPTED),
    ],
)
def test_train_leaves_with_the_code_of_its_end(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, last: Event, code: int
) -> None:
    asked = {}

    def run_local(spec, workers, folder, on_event, *, device):
        asked.update(spec=spec, workers=workers, folder=folder, device=device)
        on_event(last)
        return last

    monkeypatch.setattr("jobs.launch.run_local", run_local)
    job = make_sweep().base
    Path("job.yaml").write_text(dump_job(job))
    done = invoke("train", "job.yaml", "--workers", "2", "--device", "cpu")
    assert done.exit_code == code, done.stderr
    assert asked == {"spec": job, "workers": 2, "folder": Path("runs/job"), "device": "cpu"}
    assert done.stderr.count("\n") == (1 if code else 0)


def test_train_keeps_its_scores_where_a_sweep_does(recipe, monkeypatch) -> None:
    """So that `mirsweep score` and a later comparison find what the job itself had measured."""
    spec = make_sweep().base
    begins = iter((0, 256))

    def run_local(_spec, _workers, folder, on_event, *, device):
        begin = next(begins)
        learns = {"projector": 7}
        on_event(Started(ranks=1, device=device, trainable=learns, resumed_samples=begin))
        for samples in (begin + 256, begin + 512):
            on_event(score(samples, 3.0))
        on_event(last := Finished(samples=512, seconds=1.0))
        return last

    monkeypatch.setattr("jobs.launch.run_local", run_local)
    Path("job.yaml").write_text(dump_job(spec))
    for expected in ([256, 512], [256, 512, 768]):
        assert invoke("train", "job.yaml").exit_code == 0
        assert [s.samples for s in read_scores(Path("runs/job/scores.jsonl"))] == expected


def test_train_refuses_what_is_no_job(recipe: Path) -> None:
    Path("job.yaml").write_text("optim: {learning_rat: 1e-3}\n")
    done = invoke("train", "job.yaml")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: job.yaml:1: ")


def test_commands_can_be_pasted_without_an_activated_environment(tmp_path, monkeypatch):
    bin_folder = tmp_path / "env" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "mirsweep").write_text("")
    monkeypatch.setattr("sys.executable", str(bin_folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("mirsweep") == str(bin_folder / "mirsweep")
    monkeypatch.chdir(tmp_path)
    assert program("mirsweep") == "env/bin/mirsweep"
    assert program("not-there") == "not-there"
