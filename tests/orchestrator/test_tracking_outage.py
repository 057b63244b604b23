"""The tracking server goes away in the middle of a sweep and comes back: nobody notices but it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from tracking_server import Paced, Server, Sweep, sweep_of, untold
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.fold import load_view
from orchestrator.trackers.mlflow_tracker import MlflowTracker, tracking_uri

# MLflow's own use of SQLAlchemy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning"),
]


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("orchestrator.trackers.background.BACKOFF_S", (0.2,))


def test_trials_begin_and_end_without_the_server_and_all_is_there_once(
    server, tmp_path, capsys, caplog
):
    spec = sweep_of(8, server.uri)
    sweep = Sweep(spec, tmp_path / "study", Paced(0.05))
    sweep.until(2)
    server.kill()
    sweep.until(6)  # four trials begin and end while nobody answers
    server.back(0.0)
    view = sweep.over()
    assert capsys.readouterr().out == "", "MLflow would spoil what `run --json` prints"
    assert not [said for said in caplog.records if said.name.startswith("urllib3")]
    assert [trial.state for trial in view.trials.values()] == ["complete"] * 8
    assert untold(view, server.uri) == []


def test_a_sweep_ends_without_the_server_says_so_and_rebuild_tells_it(
    server, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("orchestrator.controller.FLUSH_S", 0.5)
    monkeypatch.setattr("orchestrator.trackers.mlflow_tracker.CLOSE_S", 0.5)
    folder = tmp_path / "study"
    sweep = Sweep(sweep_of(4, server.uri), folder, Paced(0.05))
    sweep.until(1)
    server.kill()
    view = sweep.over()
    assert view.ended is not None and len(view.trials) == 4
    assert "training goes on" in caplog.text
    assert "was not told" in caplog.text and f"mirsweep rebuild {folder}" in caplog.text
    refused = CliRunner().invoke(app, ["rebuild", str(folder)])
    assert refused.exit_code == 2, refused.output
    assert "tracking store cannot be used" in refused.stderr
    server.back(0.0)
    done = CliRunner().invoke(app, ["rebuild", str(folder)])
    assert done.exit_code == 0, done.output
    assert untold(load_view(folder), server.uri, thinned=True) == []


def test_a_locked_database_holds_up_nobody(tmp_path):
    spec, folder = sweep_of(6, None), tmp_path / "study"
    first = MlflowTracker()
    folder.mkdir()
    first.open_sweep(spec, folder)
    first.close()
    uri = tracking_uri(spec, folder)
    sweep = Sweep(spec, folder, Paced(0.05))
    sweep.until(1)
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        sweep.until(5)
        lock.rollback()
    assert untold(sweep.over(), uri) == []
