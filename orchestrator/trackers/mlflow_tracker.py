"""MLflow as the sweep's memory: one parent run a sweep, one child run a trial.

The only file that imports mlflow. All writing is done by one thread in the background: a slow or
dead server delays no step and no decision, and gets everything once it is back.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from jobs.events import Event, Scored, Skipped
from jobs.spec import JobSpec
from mir.errors import UnreachableError
from orchestrator.code_version import code_version
from orchestrator.state import skips_after
from orchestrator.trackers.background import Background, TryLaterError
from orchestrator.trackers.entries import (
    SKIPPED,
    STATUS,
    Point,
    end_tags,
    event_tags,
    parameters,
    points,
    trial_tags,
)
from sweeps.secrets import password_remedy, recorded, redacted, without_password
from sweeps.spec import SweepSpec

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
CLOSE_S = 5.0
BATCH_LIMIT = 1000
_STUDY, _PARENT = "mirsweep.study", "mlflow.parentRunId"
_HALF_MADE = ("already exists", "duplicate column", "no such index")
"""What a migration says that begins again where a killed one had come to."""
_TEMPORARY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


logger = logging.getLogger(__name__)


def tracking_uri(spec: SweepSpec, folder: Path) -> str:
    """Where the sweep's runs are: the given URI, or SQLite in the study's folder.

    Absolute: a relative path would be another database for every working directory.
    """
    return spec.tracking.uri or f"sqlite:///{folder.resolve() / DATABASE}"


class MlflowTracker:
    """A Tracker on any MLflow store."""

    def __init__(self) -> None:
        self._background: Background[Point] | None = None
        self._children: dict[int, str] = {}
        self._ended: frozenset[int] = frozenset()
        self._asked_for: set[int] = set()
        # Values by step that the store had of a metric when its trial's run was taken up again.
        self._stored: dict[int, dict[str, dict[int, float]]] = {}
        self._skips: dict[int, tuple[Skipped, ...]] = {}

    def open_sweep(self, spec: SweepSpec, folder: Path) -> None:
        """Begin or continue the parent run. Raises UnreachableError without a store."""
        uri = tracking_uri(spec, folder)
        self._folder = folder
        try:
            _temporary(lambda: self._reach(uri, spec, folder))
        except Exception as error:
            raise UnreachableError(
                f"tracking.uri: {without_password(uri)}: the tracking store cannot be used: "
                f"{redacted(_first_line(error), uri)}. Nothing was lost: "
                + _remedy(error, uri, ours=spec.tracking.uri is None)
            ) from error
        self._background = Background(self._write, "tracking")

    def _reach(self, uri: str, spec: SweepSpec, folder: Path) -> None:
        self._client = _connect(uri, ours=spec.tracking.uri is None)
        self._experiment = self._find_experiment(spec, folder)
        self._parent = self._find_parent(spec, folder)
        self._find_children()

    def _find_experiment(self, spec: SweepSpec, folder: Path) -> str:
        name = spec.tracking.experiment or spec.name
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Without a server, MLflow would put artefacts under the working directory.
        location = None if spec.tracking.uri else (folder.resolve() / ARTIFACTS).as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _find_parent(self, spec: SweepSpec, folder: Path) -> str:
        study = f"{spec.name} in {folder.resolve()}"
        text = study.replace("'", "")
        found = self._client.search_runs([self._experiment], f"tags.`{_STUDY}` = '{text}'")
        tags = {"mirsweep.code_version": code_version(), "mirsweep.seed": str(spec.study.seed)}
        if found:
            run = str(found[0].info.run_id)
            self._client.update_run(run, status="RUNNING")
            for name, value in tags.items():
                self._client.set_tag(run, name, value)
        else:
            tags[_STUDY] = text
            made = self._client.create_run(self._experiment, run_name=spec.name, tags=tags)
            run = str(made.info.run_id)
        resolved = yaml.safe_dump(recorded(spec).model_dump(mode="json"), sort_keys=False)
        self._client.log_text(run, resolved, "sweep.yaml")
        return run

    def _find_children(self) -> None:
        ended, token = set(), None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`{_PARENT}` = '{self._parent}'", page_token=token
            )
            for run in page:
                number = int(run.data.tags["mirsweep.trial"])
                self._children[number] = str(run.info.run_id)
                self._stored[number] = {}
                if run.info.status in STATUS.values():
                    ended.add(number)
            token = page.token
            if not token:
                break
        self._ended = frozenset(ended)

    def ended_trials(self) -> frozenset[int]:
        """Trials whose run the store had as ended when the sweep was opened."""
        return self._ended

    def trial_started(
        self, trial: int, spec: JobSpec, params: dict[str, float | int | str]
    ) -> None:
        """Begin the trial's run, or continue the one it has."""
        self._do(lambda: self._begin(trial, spec, params))

    def _begin(self, trial: int, spec: JobSpec, params: dict[str, float | int | str]) -> None:
        from mlflow.entities import Param, RunTag

        if trial not in self._children:
            self._children[trial] = self._made_before(trial) or self._make(trial, spec)
        else:
            self._stored[trial] = {}
        run = self._children[trial]
        self._client.update_run(run, status="RUNNING")
        given = [Param(name, value) for name, value in parameters(spec, params).items()]
        again = [RunTag(name, value) for name, value in trial_tags(trial, spec).items()]
        self._client.log_batch(run, params=given, tags=again)
        resolved = yaml.safe_dump(spec.to_json(), sort_keys=False)
        self._client.log_text(run, resolved, "job.yaml")

    def _make(self, trial: int, spec: JobSpec) -> str:
        self._asked_for.add(trial)
        tags = {_PARENT: self._parent, **trial_tags(trial, spec)}
        tags["mirsweep.code_version"] = code_version()
        name = f"trial-{trial:04d}"
        made = self._client.create_run(self._experiment, run_name=name, tags=tags)
        return str(made.info.run_id)

    def _made_before(self, trial: int) -> str | None:
        """A run that was made although its maker's answer was lost with the store."""
        if trial not in self._asked_for:
            return None
        found = self._client.search_runs(
            [self._experiment],
            f"tags.`{_PARENT}` = '{self._parent}' and tags.`mirsweep.trial` = '{trial}'",
        )
        return str(found[0].info.run_id) if found else None

    def record(self, trial: int, event: Event, at: float) -> None:
        """Keep an event: metrics in batches, tags, and for a score its layers as an artefact."""
        background = self._opened()
        skips = self._skips[trial] = skips_after(self._skips.get(trial, ()), event)
        for point in points(trial, event, at, skips):
            background.add(point)
        tags = event_tags(event)
        if tags:
            self._do(lambda: self._tag(trial, tags))
        if isinstance(event, Scored):
            path = f"mir/{event.samples:010d}.json"
            text = json.dumps(event.model_dump(mode="json"), indent=1)
            self._do(lambda: self._client.log_text(self._children[trial], text, path))

    def trial_left(self, trial: int, state: str, reason: str) -> None:
        """Say that the trial runs no longer but will again: its run is SCHEDULED meanwhile."""

        def leave() -> None:
            self._tag(trial, end_tags(state, reason))
            self._client.update_run(self._children[trial], status="SCHEDULED")

        self._do(leave)

    def trial_ended(self, trial: int, state: str, reason: str) -> None:
        """Close the trial's run: complete is FINISHED, pruned KILLED, failed FAILED."""

        def end() -> None:
            self._tag(trial, end_tags(state, reason))
            self._client.set_terminated(self._children[trial], STATUS[state])

        self._do(end)

    def _tag(self, trial: int, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        given = [RunTag(name, value) for name, value in tags.items()]
        self._client.log_batch(self._children[trial], tags=given)

    def _write(self, batch: Sequence[Point]) -> None:
        """Store points; those of a run that the store refuses do not hold up the others."""
        by_trial: dict[int, list[Point]] = {}
        for point in batch:
            by_trial.setdefault(point.trial, []).append(point)
        for trial, mine in by_trial.items():
            try:
                _temporary(partial(self._log_points, trial, mine))
            except TryLaterError:
                raise
            except Exception as error:  # noqa: BLE001 - tracking must never end a sweep
                logger.warning(
                    "tracking: trial %d: the store refuses: %s", trial, _first_line(error)
                )

    def _log_points(self, trial: int, mine: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        new = [p for p in mine if not self._is_stored(p)]
        metrics = [Metric(p.name, p.value, round(p.at * 1000), p.step) for p in new]
        for start in range(0, len(metrics), BATCH_LIMIT):
            part = metrics[start : start + BATCH_LIMIT]
            self._client.log_batch(self._children[trial], metrics=part)

    def _is_stored(self, point: Point) -> bool:
        """A job that resumed goes through steps again; MLflow would draw each of them twice.

        Only what was skipped is told twice at a step where more of it was met since.
        """
        known = self._stored.get(point.trial)
        if known is None:
            return False
        if point.name not in known:
            history = self._client.get_metric_history(self._children[point.trial], point.name)
            by_value = sorted(history, key=lambda metric: metric.value)
            known[point.name] = {metric.step: metric.value for metric in by_value}
        had = known[point.name].get(point.step)
        if had is None:
            return False
        return point.value <= had or not point.name.startswith(SKIPPED)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is stored; False if the store does not take it in time."""
        return self._background is None or self._background.flush(timeout_s)

    def close(self) -> None:
        """Store what is left within a few seconds and close the parent run."""
        if self._background is None:
            return
        self._do(lambda: self._client.set_terminated(self._parent, "FINISHED"))
        untold = self._background.close(CLOSE_S)
        self._background = None
        if untold:
            logger.warning(
                "tracking: the store stayed away and was not told %d metrics and notes; "
                "`mirsweep rebuild %s` tells them when it is back, training curves thinned to what "
                "the event log has",
                untold,
                self._folder,
            )

    def _opened(self) -> Background[Point]:
        assert self._background is not None, "open_sweep comes first"
        return self._background

    def _do(self, act: Callable[[], None]) -> None:
        self._opened().do(lambda: _temporary(act))


def _connect(uri: str, *, ours: bool) -> Any:
    """A client that fails soon: by default MLflow tries a dead server for four minutes.

    ours: whether it is the study's own database, which is made if it is not there.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow

    # Its notes on the making of a database, and those on each try while a server is away, would
    # run across the live view; Background says once that the store does not answer.
    for name, level in (
        ("mlflow", logging.WARNING),
        ("alembic", logging.WARNING),
        ("urllib3.connectionpool", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)
    if ours:
        _make_database(Path(uri.removeprefix("sqlite:///")))
    return mlflow.MlflowClient(tracking_uri=uri)


def _make_database(path: Path) -> None:
    """MLflow's tables, made aside: killed amidst its migrations, it can never go on with them."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for half in path.parent.glob(f"{path.name}.making*"):
        half.unlink()
    # MLflow keeps an engine for each name: after a failed making, that of a file which is gone.
    aside = path.with_name(f"{path.name}.making-{uuid4().hex}")
    SqlAlchemyStore(f"sqlite:///{aside}", (path.parent / ARTIFACTS).as_uri()).engine.dispose()
    aside.replace(path)


def _temporary(act: Callable[[], None]) -> None:
    """Do it; raises TryLaterError where trying again later may help."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DBAPIError

    try:
        act()
    except MlflowException as error:
        if error.error_code in _TEMPORARY:
            raise TryLaterError(_first_line(error)) from error
        raise
    except (requests.RequestException, DBAPIError, OSError) as error:
        raise TryLaterError(_first_line(error)) from error


def _remedy(error: Exception, uri: str, *, ours: bool) -> str:
    """What to do about a store that could not be opened. ours: the study's own database."""
    from mlflow.exceptions import MlflowException

    said = str(error).lower()
    if ours and any(word in said for word in _HALF_MADE):
        return (
            "a process was killed while it made the file. Move it away; the same command makes it "
            "anew, `mirsweep rebuild` with the runs that the event log has"
        )
    if ours:
        return "make the file readable and writable"
    remedy = "start it"
    if isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403):
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user it knows"
    elif "password" in said:
        remedy = password_remedy(uri, "tracking.uri", "--tracking")
    return f"{remedy}, or leave tracking.uri out for a store in the study's folder"


def _first_line(error: BaseException) -> str:
    return redacted((str(error) or type(error).__name__).strip().splitlines()[0])
