"""Going on where an earlier controller left off, wherever it was killed.

The log is the truth. Optuna and the tracker are brought up to it; jobs that were running are
queued again and resume from their newest checkpoint under the same number.
"""

from __future__ import annotations

from jobs.events import event_from_json
from mir.errors import ClusterError
from orchestrator.desk import Desk
from orchestrator.endings import Ending
from orchestrator.eventlog import read_records
from orchestrator.state import TrialState
from sweeps.decision import Verdict

_LOST = "its controller ended; runs again from its newest checkpoint"
_OPTUNA = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAIL": TrialState.FAILED}


def recover(desk: Desk) -> None:
    """Make the log, Optuna and the tracker agree before the first new decision."""
    _remember_in_tracker(desk)
    _agree_with_optuna(desk)
    for number, trial in list(desk.journal.view.trials.items()):
        if trial.state.final:
            continue
        if trial.verdict is Verdict.PRUNE:
            how = Ending(state=TrialState.PRUNED, reason=trial.verdict_reason)
            desk.finish(number, how, None)
        elif trial.state is TrialState.RUNNING:
            desk.finish(number, Ending(state=TrialState.QUEUED, reason=_LOST), None)


def _agree_with_optuna(desk: Desk) -> None:
    states = desk.study.states()
    for number, trial in sorted(desk.journal.view.trials.items()):
        found = states.get(number)
        if found is None or found == "WAITING":
            _make_again(desk, number)
        elif found != "RUNNING" and _OPTUNA[found] is not trial.state:
            raise ClusterError(
                f"{desk.folder}: trial {number} is {found} in Optuna but {trial.state} in the "
                "event log. Were files of two studies mixed? Restore the folder from a backup"
            )
        if found not in _OPTUNA:
            desk.study.adopt(number)
            desk.report_again(number)
        if trial.state.final:
            desk.tell(number)
    known = desk.journal.view.trials
    for number, found in sorted(desk.study.states().items()):
        if number in known:
            continue
        if found == "RUNNING":
            # Killed between Optuna's suggestion and our record of it.
            desk.journal.asked(desk.study.adopt(number))
        elif found == "FAIL":
            desk.refused(number, "bad-configuration: the sampled point is no valid job")


def _make_again(desk: Desk, number: int) -> None:
    """A trial of the log that Optuna lacks: its database was lost or replaced."""
    trial = desk.trial(number)
    waiting = desk.study.states().get(number) == "WAITING"
    made = desk.study.ask() if waiting else desk.study.restore(number, trial.raw)
    if made.number != number or dict(made.raw) != trial.raw:
        raise ClusterError(
            f"{desk.folder}: Optuna's study lacks trial {number} and could not make it again. "
            "Restore the study's database from a backup"
        )


def _remember_in_tracker(desk: Desk) -> None:
    """Tell the tracker again what it may have missed: events keep their times, so none doubles."""
    trials = desk.journal.view.trials
    ended = desk.tracker.ended_trials()
    missed = {n for n, trial in trials.items() if n not in ended and trial.attempt > 0}
    if not missed:
        return
    for number in sorted(missed):
        desk.tracker.trial_started(number, trials[number].job, trials[number].params)
    for record in read_records(desk.journal.path):
        if record.kind == "event" and record.data["trial"] in missed:
            event = event_from_json(record.data["event"])
            desk.tracker.record(record.data["trial"], event, record.time)
    for number in sorted(missed):
        if trials[number].state.final:
            desk.tracker.trial_ended(number, trials[number].state, trials[number].reason)
