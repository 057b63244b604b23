"""Mending a damaged log, and making Optuna's study and the tracker's runs again from it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from jobs.files import written_whole
from mir.errors import ClusterError
from orchestrator.eventlog import LOG_NAME, Record, decode, encode
from orchestrator.fold import fold_all, load_log
from orchestrator.layout import TRIALS, trial_folder
from orchestrator.lease import lease
from orchestrator.ports import Suggester, Tracker
from orchestrator.projections import project_study, project_tracker
from orchestrator.state import SweepView
from sweeps.spec import SweepSpec
from sweeps.storage import forget_study
from sweeps.study import Study

FLUSH_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of a log. lost: one line for everything that is gone, none if it was whole.

    kept: records that are in the log now. backup: the log as it was, None if it was whole.
    """

    kept: int
    lost: tuple[str, ...] = ()
    backup: Path | None = None


def repair_log(folder: Path) -> Repair:
    """Leave out the damaged records of a study's log; where the rest makes no sense without them,
    cut the log before the first one. The log as it was stays beside it, and so do the files of
    trials that it no longer has: their numbers come again with other jobs.

    Raises ClusterError if another controller runs the study, a later mirsweep wrote it, or no
    session record can be read.
    """
    path = folder / LOG_NAME
    with lease(folder):
        lines = path.read_bytes().splitlines(keepends=True)
        found, lost, whole = _readable(lines, path)
        if not lost:
            return Repair(kept=len(found))
        kept = _with_session(path, found)
        if not _makes_sense(kept):
            kept = _with_session(path, found[:whole])
            lost.append(
                f"{len(found) - whole} whole records after record {whole}: they make no sense "
                "without it"
            )
        mark = f"damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        backup = path.with_name(f"{LOG_NAME}.{mark}")
        shutil.copy2(path, backup)
        view = fold_all(kept)
        assert view is not None, "a session was found"
        lost += _set_aside(folder, view, mark)
        _write(path, [replace(record, n=n) for n, record in enumerate(kept)])
    return Repair(kept=len(kept), lost=tuple(lost), backup=backup)


def _set_aside(folder: Path, view: SweepView, mark: str) -> list[str]:
    """Move the folders of trials that the view lacks out of the way; says which."""
    known = {trial_folder(folder, number) for number in view.trials}
    there = (path for path in (folder / TRIALS).glob("*") if path.name.isdigit())
    gone = sorted(path for path in there if path not in known)
    if not gone:
        return []
    aside = folder / f"{TRIALS}.{mark}"
    aside.mkdir(exist_ok=True)
    for path in gone:
        path.rename(aside / path.name)
    names = ", ".join(path.name for path in gone)
    return [f"trials {names} are not in the log any more: their files are in {aside}"]


def _readable(lines: list[bytes], path: Path) -> tuple[list[Record], list[str], int]:
    """Whole records in order, what is wrong with the others, and how many come before the first."""
    found: list[Record] = []
    lost: list[str] = []
    whole = 0
    for index, line in enumerate(lines):
        expected = found[-1].n + 1 if found else 0
        try:
            record = decode(line, path=path)
            if not line.endswith(b"\n"):
                raise ValueError("it was cut short")
            if record.n < expected:
                raise ValueError(f"it is record {record.n} once more")
        except ValueError as error:
            lost.append(f"line {index + 1}: {error}")
            continue
        if record.n > expected and not lost:
            lost.append(f"records {expected} to {record.n - 1}: they are missing")
        if not lost:
            whole += 1
        found.append(record)
    return found, lost, whole


def _with_session(path: Path, records: list[Record]) -> list[Record]:
    """A log begins with a session: if that record is lost, with a copy of the next one."""
    session = next((record for record in records if record.kind == "session"), None)
    if session is None:
        raise ClusterError(
            f"{path}: no record that holds the recipe can be read. Restore the file from a backup"
        )
    return records if records[0] is session else [session, *records]


def _makes_sense(records: list[Record]) -> bool:
    try:
        fold_all(records)
    except (AssertionError, KeyError, ValidationError):
        return False
    return True


def _write(path: Path, records: list[Record]) -> None:
    with written_whole(path, durable=True) as part:
        part.write_bytes(b"".join(map(encode, records)))


def rebuild(
    folder: Path,
    tracker: Tracker | None,
    open_study: Callable[[SweepSpec, Path], Suggester] = Study,
    *,
    storage: str | None = None,
    tracking: str | None = None,
) -> SweepView:
    """Make Optuna's study anew from the log, and tell the tracker all of it.

    tracker: None leaves it as it is. Its runs are continued, so each trial has one. storage,
    tracking: their URLs in place of the log's, which keeps no passwords. Raises ClusterError if
    another controller runs the study, or a store does not take everything.
    """
    with lease(folder):
        view = _stored_at(load_log(folder), storage, tracking)
        forget_study(view.spec.study.storage, folder, view.spec.name)
        project_study(view, open_study(view.spec, folder), folder)
        if tracker is not None:
            _tell_tracker(view, folder, tracker)
    return view


def _stored_at(view: SweepView, storage: str | None, tracking: str | None) -> SweepView:
    study, tracker = view.spec.study, view.spec.tracking
    if storage is not None:
        study = study.model_copy(update={"storage": storage})
    if tracking is not None:
        tracker = tracker.model_copy(update={"uri": tracking})
    spec = view.spec.model_copy(update={"study": study, "tracking": tracker})
    return replace(view, spec=spec)


def _tell_tracker(view: SweepView, folder: Path, tracker: Tracker) -> None:
    tracker.open_sweep(view.spec, folder)
    try:
        project_tracker(view, folder / LOG_NAME, tracker, set(view.trials))
        if not tracker.flush(FLUSH_S):
            raise ClusterError(
                f"{folder}: the tracking store does not take everything. Run the command again "
                "when it answers"
            )
    finally:
        tracker.close()
