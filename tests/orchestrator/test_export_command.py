"""`mirsweep export`: which checkpoint is meant, and what is said about the result."""

from pathlib import Path

import pytest
from small_world import FakeJobs, FakeStudy, make_sweep
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.views.standing import best_trial

runner = CliRunner()


@pytest.fixture
def exported(monkeypatch):
    """What the command asked to export; nothing is built."""
    from jobs.export import run as export_run

    asked = []

    def fake(checkpoint, folder):
        asked.append((checkpoint, folder))
        return export_run.Exported(
            folder=folder, form="llava", why="", moca_layers=(1, 2), samples=8, difference=1e-6
        )

    monkeypatch.setattr(export_run, "export_checkpoint", fake)
    monkeypatch.setattr("jobs.downstream.start.find_checkpoint", lambda start: Path(start) / "n")
    return asked


def test_a_checkpoint_is_exported_and_what_came_out_is_told(exported, tmp_path):
    done = runner.invoke(app, ["export", "some/job", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert exported == [(Path("some/job/n"), tmp_path / "out")]
    assert "LlavaForConditionalGeneration" in done.output
    assert "2 decoder layers" in done.output and "1e-06" in done.output


class Elsewhere(FakeJobs):
    """Jobs on workers that see the study's folder at another mount point."""

    def __call__(self, spec, place):
        for event in super().__call__(spec, place):
            if event.event == "checkpointed":
                path = f"/mnt/workers/study/trials/{place.folder.name}/checkpoints/samples-64"
                event = event.model_copy(update={"path": path})
            yield event


@pytest.fixture
def moved(tmp_path):
    """A finished study that lies elsewhere by now, and its view."""
    spec = make_sweep(2)
    view = Controller(
        spec, tmp_path / "study", InlineExecutor(Elsewhere()), MemoryTracker(),
        open_study=lambda *_: FakeStudy(spec),
    ).run()  # fmt: skip
    return (tmp_path / "study").rename(tmp_path / "moved"), view


def test_the_best_trials_checkpoint_is_found_in_a_study_that_was_moved(exported, moved, tmp_path):
    folder, view = moved
    done = runner.invoke(app, ["export", "--best", str(folder), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    best = f"{best_trial(view).number:04d}"
    assert exported[0][0] == folder / "trials" / best / "checkpoints" / "samples-64" / "n"


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["status", "--json"]])
def test_a_checkpoint_is_shown_where_it_lies_and_not_where_it_was_written(moved, command):
    folder, _ = moved
    (folder / "trials/0000/checkpoints/samples-64").mkdir(parents=True, exist_ok=True)
    trial = ["0"] if command[0] == "show" else []
    done = runner.invoke(app, [command[0], str(folder), *trial, *command[1:]])
    assert done.exit_code == 0, done.output
    shown = "".join(done.output.split())
    assert f"{folder}/trials/0000/checkpoints/samples-64" in shown
    assert "/mnt/workers" not in shown


def test_without_a_best_trial_the_remedy_is_told(exported, moved, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.views.standing.best_trial", lambda view: None)
    done = runner.invoke(app, ["export", str(moved[0]), str(tmp_path / "out"), "--best"])
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1
    assert "no trial of it is complete and feasible" in done.output
    assert not exported
