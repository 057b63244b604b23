"""Both trackers under one contract, and what MLflow alone must do."""

from __future__ import annotations

import shutil
import threading
import time

import pytest
from small_world import make_sweep, score

from jobs.events import Checkpointed, Skipped, Started, Step
from mir.errors import ClusterError, ConfigError
from orchestrator.commands.preflight import check_tracking
from orchestrator.trackers.background import Background, TryLaterError
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.trackers.mlflow_tracker import MlflowTracker, tracking_uri
from sweeps.spec import TrackingSpec

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")

SPEC = make_sweep()
JOB = SPEC.base
PARAMS = {"learning_rate": 0.003, "mixture/detailed": 0.25}


def step(samples, loss=1.0):
    return Step(
        samples=samples, loss=loss, learning_rate=0.1, grad_norm=2.0, samples_per_second=3.0
    )


class MlflowBench:
    """Reads back what the tracker stored."""

    def __init__(self, folder):
        self.folder = folder
        self.make = MlflowTracker

    @property
    def client(self):
        import mlflow

        return mlflow.MlflowClient(tracking_uri=tracking_uri(SPEC, self.folder))

    def runs(self):
        experiment = self.client.get_experiment_by_name("small").experiment_id
        return self.client.search_runs([experiment])

    def parents(self):
        return [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]

    def child(self, trial):
        (found,) = [r for r in self.runs() if r.data.tags.get("mirsweep.trial") == str(trial)]
        return found

    def history(self, trial, name):
        points = self.client.get_metric_history(self.child(trial).info.run_id, name)
        return sorted((point.step, point.value) for point in points)

    def state(self, trial):
        tags = self.child(trial).data.tags
        return tags["mirsweep.state"], tags["mirsweep.reason"]


class MemoryBench:
    """The same questions to the twin."""

    def __init__(self, folder):
        self.tracker = MemoryTracker()
        self.make = lambda: self.tracker

    def history(self, trial, name):
        events = self.tracker.trials[trial].events.values()
        if name == "mir":
            return [(e.samples, e.mir["mir"]) for e in events if e.event == "scored"]
        return [(e.samples, getattr(e, name)) for e in events if e.event == "step"]

    def state(self, trial):
        return self.tracker.trials[trial].state, self.tracker.trials[trial].reason


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """MLflow takes seconds to make its tables; every test here gets a copy."""
    folder = tmp_path_factory.mktemp("store")
    tracker = MlflowTracker()
    tracker.open_sweep(SPEC.model_copy(update={"name": "other"}), folder)
    tracker.close()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def _tables(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path)


@pytest.fixture(params=[MemoryBench, MlflowBench])
def bench(request, tmp_path):
    return request.param(tmp_path)


def test_a_trial_is_remembered_with_metrics_by_samples_and_its_end(bench, tmp_path):
    tracker = bench.make()
    tracker.open_sweep(SPEC, tmp_path)
    tracker.trial_started(0, JOB, PARAMS)
    for n in range(1, 4):
        tracker.record(0, step(8 * n, loss=1.0 / n), 100.0 + n)
    tracker.record(0, score(24, 3.5), 104.0)
    tracker.trial_ended(0, "pruned", "MIR 3.5 against 2.0")
    assert tracker.flush(20.0)
    assert bench.history(0, "loss") == [(8, 1.0), (16, 0.5), (24, pytest.approx(1 / 3))]
    assert bench.history(0, "mir") == [(24, 3.5)]
    assert bench.state(0) == ("pruned", "MIR 3.5 against 2.0")
    tracker.close()
    tracker.close()


def test_opened_again_it_continues_the_same_runs_and_doubles_nothing(bench, tmp_path):
    for _ in range(2):
        tracker = bench.make()
        tracker.open_sweep(SPEC, tmp_path)
        tracker.trial_started(0, JOB, PARAMS)
        tracker.record(0, step(8), 100.0)
        tracker.trial_started(1, JOB, PARAMS)
        tracker.trial_ended(1, "complete", "")
        assert tracker.flush(20.0)
        tracker.close()
    tracker = bench.make()
    tracker.open_sweep(SPEC, tmp_path)
    assert tracker.ended_trials() == {1}
    assert bench.history(0, "loss") == [(8, 1.0)]
    tracker.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_what_a_restarted_trial_goes_through_again_is_kept_once(bench, tmp_path, reopened):
    tracker = bench.make()
    tracker.open_sweep(SPEC, tmp_path)
    tracker.trial_started(0, JOB, PARAMS)
    for n in (8, 16, 24):
        tracker.record(0, step(n), 100.0 + n)
    tracker.record(0, score(16, 3.5), 120.0)
    if reopened:
        tracker.close()
        tracker = bench.make()
        tracker.open_sweep(SPEC, tmp_path)
    tracker.trial_started(0, JOB, PARAMS)
    for n in (16, 24, 32):
        tracker.record(0, step(n), 200.0 + n)
    tracker.record(0, score(16, 3.5), 220.0)
    tracker.record(0, score(32, 3.0), 240.0)
    assert tracker.flush(20.0)
    assert [at for at, _ in bench.history(0, "loss")] == [8, 16, 24, 32]
    assert bench.history(0, "mir") == [(16, 3.5), (32, 3.0)]
    tracker.close()


def test_a_restarted_trial_is_running_again(bench, tmp_path):
    tracker = bench.make()
    tracker.open_sweep(SPEC, tmp_path)
    tracker.trial_started(0, JOB, PARAMS)
    tracker.trial_ended(0, "failed", "x")
    tracker.trial_started(0, JOB, PARAMS)
    assert tracker.flush(20.0)
    assert bench.state(0) == ("running", "")
    tracker.close()


def test_mlflow_has_parameters_tags_and_artefacts(tmp_path):
    bench = MlflowBench(tmp_path)
    tracker = MlflowTracker()
    tracker.open_sweep(SPEC, tmp_path)
    tracker.trial_started(3, JOB, PARAMS)
    versions = {"torch": "2.13.0", "odd name!": "1"}
    started = Started(
        ranks=2, device="cpu", trainable={"projector": 7}, versions=versions,
        weights={"detailed": 0.05}, semantics="began with 0, goes on with 1",
    )  # fmt: skip
    tracker.record(3, started, 1.0)
    tracker.record(3, score(16, 2.5), 2.0)
    tracker.record(3, Checkpointed(samples=16, path="/x/16"), 2.5)
    tracker.record(3, Skipped(source="web", reason="truncated image?", count=2), 3.0)
    tracker.trial_ended(3, "complete", "")
    assert tracker.flush(20.0)
    tracker.close()
    run = bench.child(3)
    assert run.data.params["learning_rate"] == "0.003"
    assert run.data.params["mixture/detailed"] == "0.25"
    assert run.data.params["moca"] == "off"
    tags = run.data.tags
    assert tags["mirsweep.seed"] == "0"
    assert tags["mirsweep.checkpoint"] == "/x/16"
    assert tags["version/torch"] == "2.13.0"
    assert tags["mirsweep.semantics"] == "began with 0, goes on with 1"
    assert tags["trained_mixture/detailed"] == "0.05"  # asked for was the parameter, 0.25
    assert tags["mir.variant"] == "exact"
    assert tags["mir.fingerprint"] == score(16, 2.5).report.fingerprint
    assert tags["mirsweep.code_version"]
    assert run.info.status == "FINISHED"
    names = {"mir", "mir_standard_error", "validation_loss", "gap"}
    assert names <= set(run.data.metrics)
    assert run.data.metrics["skipped/web/truncated image_"] == 2
    files = [file.path for file in bench.client.list_artifacts(run.info.run_id)]
    assert sorted(files) == ["job.yaml", "mir"]
    (layers,) = bench.client.list_artifacts(run.info.run_id, "mir")
    assert layers.path == "mir/0000000016.json"
    (parent,) = bench.parents()
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FINISHED"
    assert (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x", "sqlite:////dev/null/m.db"])
def test_a_store_out_of_reach_is_refused_in_one_line(tmp_path, uri):
    spec = SPEC.model_copy(update={"tracking": TrackingSpec(uri=uri)})
    with pytest.raises(ClusterError, match=r"tracking\.uri: ") as refusal:
        MlflowTracker().open_sweep(spec, tmp_path)
    assert "\n" not in str(refusal.value)
    assert uri in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_an_outage_blocks_nobody_and_all_is_there_in_the_end(tmp_path, monkeypatch, caplog):
    import requests

    bench = MlflowBench(tmp_path)
    tracker = MlflowTracker()
    tracker.open_sweep(SPEC, tmp_path)
    tracker.trial_started(0, JOB, PARAMS)
    assert tracker.flush(20.0)
    log_batch, refused = tracker._client.log_batch, []

    def down(*args, **kwargs):
        if len(refused) < 3:
            refused.append(threading.current_thread())
            raise requests.ConnectionError("connection refused")
        return log_batch(*args, **kwargs)

    monkeypatch.setattr(tracker._client, "log_batch", down)
    monkeypatch.setattr("orchestrator.trackers.background.BACKOFF_S", (0.01,))
    for n in range(1, 1200):
        tracker.record(0, step(n), float(n))
    tracker.trial_ended(0, "complete", "")
    assert tracker.flush(20.0)
    assert len(refused) == 3
    assert threading.main_thread() not in refused
    assert "trying again" in caplog.text
    assert len(bench.history(0, "loss")) == 1199
    tracker.close()


def test_what_the_store_refuses_for_good_is_left_out_and_said(tmp_path, caplog):
    bench = MlflowBench(tmp_path)
    tracker = MlflowTracker()
    tracker.open_sweep(SPEC, tmp_path)
    tracker.trial_started(0, JOB, {"learning_rate": 0.1})
    # Parameters are immutable in MLflow.
    tracker.trial_started(0, JOB, {"learning_rate": 0.2})
    tracker.record(0, step(8), 1.0)
    assert tracker.flush(20.0)
    assert "left out" in caplog.text
    assert bench.history(0, "loss") == [(8, 1.0)]
    tracker.close()


def test_closing_gives_a_dead_store_up_after_its_time():
    written = []

    def dead(items):
        written.extend(items)
        raise TryLaterError("nobody answers")

    background: Background[int] = Background(dead, "test")
    background.add(1)
    assert not background.flush(0.05)
    begin = time.monotonic()
    background.close(0.3)
    assert not background._thread.is_alive()
    assert written.count(1) > 1
    assert time.monotonic() >= begin + 0.3


def test_a_run_whose_makers_answer_was_lost_is_not_made_twice(tmp_path, monkeypatch):
    import requests

    bench = MlflowBench(tmp_path)
    tracker = MlflowTracker()
    tracker.open_sweep(SPEC, tmp_path)
    make, lost = tracker._client.create_run, []

    def cut_off(*args, **kwargs):
        made = make(*args, **kwargs)
        if not lost:
            lost.append(made)
            raise requests.ConnectionError("connection reset by peer")
        return made

    monkeypatch.setattr(tracker._client, "create_run", cut_off)
    monkeypatch.setattr("orchestrator.trackers.background.BACKOFF_S", (0.01,))
    tracker.trial_started(0, JOB, PARAMS)
    tracker.trial_started(1, JOB, PARAMS)
    tracker.record(0, step(8), 1.0)
    assert tracker.flush(20.0)
    assert bench.child(0).info.run_id == lost[0].info.run_id
    assert bench.history(0, "loss") == [(8, 1.0)]
    assert bench.child(1).info.run_id != bench.child(0).info.run_id
    tracker.close()


def test_what_a_dead_store_was_not_told_is_counted():
    def dead(items):
        raise TryLaterError("nobody answers")

    background: Background[int] = Background(dead, "test")
    for n in range(5):
        background.add(n)
    background.do(lambda: None)
    background.add(5)
    assert background.close(0.0) == 7
    assert background.close(0.0) == 7


def test_a_store_that_cannot_be_used_is_named_without_its_password(tmp_path):
    uri = "nosuch://me:secret@host/name"
    spec = SPEC.model_copy(update={"tracking": TrackingSpec(uri=uri)})
    with pytest.raises(ClusterError, match="nosuch://me@host/name") as caught:
        MlflowTracker().open_sweep(spec, tmp_path)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"me@127\.0\.0\.1:1 cannot be reached") as refused:
        check_tracking("http://me:secret@127.0.0.1:1")
    assert "secret" not in str(refused.value)
