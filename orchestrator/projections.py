"""Optuna's study and the tracker's runs as projections of the log: what they lack is told again.

Telling is idempotent: a value told twice is kept once, events keep their times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from jobs.events import Scored, event_from_json
from mir.errors import ClusterError, MirsweepError
from orchestrator.eventlog import read_records
from orchestrator.front import also
from orchestrator.ports import Suggester, Tracker
from orchestrator.state import SweepView, TrialState, TrialView
from sweeps.objective import objective_error, objective_value
from sweeps.secrets import without_password
from sweeps.spec import SweepSpec
from sweeps.storage import IN_MEMORY

OPTUNA = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAIL": TrialState.FAILED,
}


class Teller(Protocol):
    """What hears how trials go: a Suggester, or the clerk before it."""

    def report(self, number: int, samples: int, value: float, error: float = 0.0) -> None:
        """Note a feasible score."""
        ...

    def also(self, number: int, values: Sequence[float]) -> None:
        """Note the other objectives of a trial that is about to end."""
        ...

    def tell_complete(self, number: int, objective: float, violations: Mapping[str, float]) -> None:
        """End a trial with its value."""
        ...

    def tell_pruned(self, number: int, reason: str, violations: Mapping[str, float]) -> None:
        """End a trial that was stopped."""
        ...

    def tell_failed(self, number: int, reason: str) -> None:
        """End a trial without a value."""
        ...


def tell(study: Teller, trial: TrialView, spec: SweepSpec) -> None:
    """Tell how a trial ended; nothing for one that has not."""
    if spec.study.also and trial.state.final and trial.scores:
        study.also(trial.number, also(trial, spec))
    match trial.state:
        case TrialState.COMPLETE:
            assert trial.objective is not None
            study.tell_complete(trial.number, trial.objective, trial.violations)
        case TrialState.PRUNED:
            study.tell_pruned(trial.number, trial.reason, trial.violations)
        case TrialState.FAILED:
            study.tell_failed(trial.number, trial.reason)


def report(study: Teller, trial: TrialView, objective: str) -> None:
    """Report all feasible scores of a trial."""
    for scored, counts in zip(trial.scores, trial.counted, strict=True):
        report_one(study, trial.number, scored, objective, feasible=counts)


def report_one(
    study: Teller, number: int, scored: Scored, objective: str, *, feasible: bool
) -> None:
    """Report one score, if it counts."""
    if feasible:
        value, error = objective_value(objective, scored), objective_error(objective, scored)
        study.report(number, scored.samples, value, error)


def project_study(view: SweepView, study: Suggester, folder: Path) -> None:
    """Give the study every trial of the log, in order, as far as it has come.

    Raises ClusterError where the study holds something else.
    """
    states = study.states()
    for number, state in sorted(states.items()):
        if number not in view.trials and state in ("COMPLETE", "PRUNED"):
            what = f"trial {number} is {state} in Optuna and not in the event log."
            raise ClusterError(f"{folder}: {what} {_remedy(view.spec)}")
    for number, trial in sorted(view.trials.items()):
        found = states.get(number)
        if found in OPTUNA and OPTUNA[found] is trial.state:
            continue
        if found in OPTUNA:
            what = f"trial {number} is {found} in Optuna but {trial.state} in the event log."
            raise ClusterError(f"{folder}: {what} {_remedy(view.spec)}")
        _make_again(study, trial, view.spec, folder)
        report(study, trial, view.spec.study.objective)
        study.paused(number, paused=trial.frozen)
        tell(study, trial, view.spec)


def _remedy(spec: SweepSpec) -> str:
    if spec.study.storage in (None, IN_MEMORY):
        return "`mirsweep rebuild` makes Optuna's study again from the log"
    where = without_password(spec.study.storage)
    return (
        f"If the study '{spec.name}' in {where} is another folder's, give this one a study.storage "
        "of its own or another name: `mirsweep rebuild` deletes it there and makes it again from "
        "this log"
    )


def _make_again(study: Suggester, trial: TrialView, spec: SweepSpec, folder: Path) -> None:
    try:
        study.restore(trial.number, trial.raw, trial.params)
    except ClusterError:
        raise
    except MirsweepError as error:
        raise ClusterError(f"{folder}: {error} {_remedy(spec)}") from error


def project_tracker(view: SweepView, log: Path, tracker: Tracker, trials: set[int]) -> None:
    """Tell the tracker again all that the log has about these trials, as far as they ever ran."""
    told = sorted(number for number in trials if _ran(view.trials[number]))
    if not told:
        return
    known = set(told)
    for number in told:
        tracker.trial_started(number, view.trials[number].job, view.trials[number].params)
    for record in read_records(log):
        if record.kind == "event" and record.data["trial"] in known:
            event = event_from_json(record.data["event"])
            tracker.record(record.data["trial"], event, record.time)
    for number in told:
        trial = view.trials[number]
        if trial.state.final:
            tracker.trial_ended(number, trial.state, trial.reason)
        elif trial.state is not TrialState.RUNNING:
            tracker.trial_left(number, trial.state, trial.reason)


def _ran(trial: TrialView) -> bool:
    """Whether a job of it was ever heard or begun; a mended log may lack the beginning."""
    return trial.attempt > 0 or trial.samples > 0 or bool(trial.scores)
