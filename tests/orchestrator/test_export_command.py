"""`mirsweep export`: which checkpoint is meant, and what is said about the result."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app

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


def test_the_best_trial_of_a_study_is_meant_with_best(exported, tmp_path, monkeypatch):
    class Trial:
        checkpoint = "runs/s/trials/3/checkpoints/samples-1"

    monkeypatch.setattr("orchestrator.commands.studies.load_study", lambda study: (study, study))
    monkeypatch.setattr("orchestrator.views.standing.best_trial", lambda view: Trial)
    done = runner.invoke(app, ["export", "--best", "s", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert exported[0][0] == Path(Trial.checkpoint) / "n"
    monkeypatch.setattr("orchestrator.views.standing.best_trial", lambda view: None)
    done = runner.invoke(app, ["export", "s", str(tmp_path / "out"), "--best"])
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1
    assert "no trial of it is complete and feasible" in done.output
