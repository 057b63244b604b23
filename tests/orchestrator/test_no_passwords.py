"""Nothing that others read of a sweep has the passwords of its storage and tracking server."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from small_world import FakeJobs, FakeStudy, make_sweep
from sqlalchemy.exc import DBAPIError
from sweep_views import make_view
from typer.testing import CliRunner

from mir.errors import ClusterError, ConfigError, UnreachableError
from orchestrator.cli import app
from orchestrator.commands.preflight import check_tracking
from orchestrator.controller import Controller
from orchestrator.eventlog import LOG_NAME
from orchestrator.executors.inline import InlineExecutor
from orchestrator.journal import Journal
from orchestrator.mend import rebuild
from orchestrator.replay.synthetic import synthetic
from orchestrator.replay.table import Table, save_table
from orchestrator.report.page import _origin
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.trackers.mlflow_tracker import MlflowTracker
from orchestrator.views.plan import Where, plan_json
from orchestrator.views.summary import mlflow_command
from sweeps.spec import SweepSpec, TrackingSpec
from sweeps.storage import storage_errors

STORAGE = "mysql://me:hunter2@host/name"
SERVER = "https://me:swordfish@host:5000"


def with_urls(spec: SweepSpec, storage: str | None = STORAGE, uri: str = SERVER) -> SweepSpec:
    study = spec.study.model_copy(update={"storage": storage})
    return spec.model_copy(update={"study": study, "tracking": TrackingSpec(uri=uri)})


def clean(text: str) -> bool:
    """Whether the addresses are there and the passwords are not."""
    there = "mysql://me@host/name" in text and "https://me@host:5000" in text
    return there and not any(secret in text for secret in ("hunter2", "swordfish"))


def test_the_event_log_and_the_plan_keep_the_addresses_alone(tmp_path):
    spec = with_urls(make_sweep())
    journal = Journal(tmp_path)
    journal.session(spec)
    journal.close()
    assert clean((tmp_path / LOG_NAME).read_text())
    here = InlineExecutor(FakeJobs()).capacity()
    assert clean(json.dumps(plan_json(spec, [], Where("here", here, here))))


def test_an_old_log_that_has_them_is_shown_and_replayed_without(tmp_path):
    view = make_view(2)
    old = type(view)(**{**vars(view), "spec": with_urls(view.spec)})
    assert clean(_origin(old))
    assert mlflow_command(old, tmp_path) == "https://me@host:5000"
    table = synthetic(make_sweep(4))
    save_table(Table(with_urls(table.spec), table.trials), tmp_path / "table.json")
    assert clean((tmp_path / "table.json").read_text())


class Refusing(BaseHTTPRequestHandler):
    """A tracking server that does not know who asks."""

    def do_GET(self):
        self.send_response(401)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_):
        """Nothing."""


def test_a_server_that_refuses_names_where_mlflow_reads_user_and_password(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever).start()
    try:
        spec = with_urls(make_sweep(), None, f"http://me@127.0.0.1:{server.server_port}")
        with pytest.raises(UnreachableError, match="MLFLOW_TRACKING_PASSWORD") as caught:
            MlflowTracker().open_sweep(spec, tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert "MLFLOW_TRACKING_USERNAME" in str(caught.value) and "\n" not in str(caught.value)


def refused(url: str) -> str:
    """What is said where a database refuses the password."""
    with pytest.raises(ClusterError) as caught, storage_errors(url):
        raise DBAPIError.instance(
            None, None, Exception("Access denied for 'me' (using password: NO)"), Exception
        )
    return str(caught.value)


@pytest.mark.parametrize("url", ["mysql://me@host/name", "postgresql://me@host/name"])
def test_a_database_without_its_password_names_the_option(url):
    said = refused(url)
    assert "--storage" in said and "study.storage" in said
    assert ("PGPASSWORD" in said) == url.startswith("postgresql")


def test_a_wrong_password_is_to_be_corrected():
    said = refused("postgresql://me:hunter2@host/name")
    assert "correct the password" in said
    assert "PGPASSWORD" not in said and "log keeps none" not in said and "hunter2" not in said


def test_rebuild_is_given_the_addresses_that_the_log_has_without_passwords(tmp_path, monkeypatch):
    folder, spec = tmp_path / "study", make_sweep(4)
    executor = InlineExecutor(FakeJobs(), nodes=((1.0, 0.0),))
    study = FakeStudy(spec)
    Controller(spec, folder, executor, MemoryTracker(), open_study=lambda *_: study).run()
    storage, opened = f"sqlite:///{tmp_path}/other.db", []

    class Tracker(MemoryTracker):
        def open_sweep(self, spec, folder):
            opened.append(spec.tracking.uri)
            super().open_sweep(spec, folder)

    monkeypatch.setattr("orchestrator.trackers.mlflow_tracker.MlflowTracker", Tracker)
    words = ["rebuild", str(folder), "--storage", storage, "--tracking", SERVER]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert opened == [SERVER]
    assert (tmp_path / "other.db").stat().st_size > 0 and not (folder / "study.db").exists()
    assert rebuild(folder, None, lambda *_: FakeStudy(spec)).spec == spec


@pytest.mark.parametrize("uri", ["http://me:sec/ret@127.0.0.1:1", "http://me:sec/ret@[::1"])
def test_an_address_that_cannot_be_read_is_not_quoted(uri):
    with pytest.raises(ConfigError, match="%40 %3A %2F") as caught:
        check_tracking(uri)
    assert "sec" not in str(caught.value) and "ret" not in str(caught.value)
