"""Going on where an earlier controller left off, wherever it was killed.

The log is the truth. Optuna and the tracker are brought up to it; jobs that were running are
queued again and resume from their newest checkpoint under the same number.
"""

from __future__ import annotations

from orchestrator.desk import Desk
from orchestrator.endings import Ending
from orchestrator.projections import project_study, project_tracker
from orchestrator.state import TrialState
from sweeps.decision import Verdict

_LOST = "its controller ended; runs again from its newest checkpoint"


def recover(desk: Desk) -> None:
    """Make the log, Optuna and the tracker agree before the first new decision."""
    view = desk.journal.view
    missed = set(view.trials) - desk.tracker.ended_trials()
    project_tracker(view, desk.journal.path, desk.tracker, missed)
    project_study(view, desk.study, desk.folder)
    _take_up_unknown(desk)
    for number, trial in list(desk.journal.view.trials.items()):
        if trial.state.final:
            continue
        if trial.verdict is Verdict.PRUNE:
            how = Ending(state=TrialState.PRUNED, reason=trial.verdict_reason)
            desk.finish(number, how, None)
        elif trial.verdict is Verdict.PAUSE and not trial.frozen:
            how = Ending(state=TrialState.PAUSED, reason=trial.verdict_reason)
            desk.finish(number, how, None)
        elif trial.state is TrialState.RUNNING:
            desk.finish(number, Ending(state=TrialState.QUEUED, reason=_LOST), None)


def _take_up_unknown(desk: Desk) -> None:
    """Trials that Optuna began when the controller died before the log had them."""
    known = desk.journal.view.trials
    for number, found in sorted(desk.study.states().items()):
        if number in known:
            continue
        if found == "RUNNING":
            desk.journal.asked(desk.study.adopt(number))
        elif found == "FAIL":
            desk.refused(number, "bad-configuration: the sampled point is no valid job")
