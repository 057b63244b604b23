"""Going on where an earlier controller left off, wherever it was killed.

The log is the truth. Optuna and the tracker are brought up to it; jobs that were running are
queued again and resume from their newest checkpoint under the same number.
"""

from __future__ import annotations

from orchestrator.desk import Desk
from orchestrator.earlier import earlier
from orchestrator.endings import Ending
from orchestrator.journal import Journal
from orchestrator.ports import Suggester
from orchestrator.projections import project_study, project_tracker
from orchestrator.state import TrialState
from sweeps.axes import Raw
from sweeps.decision import Verdict
from sweeps.spec import SweepSpec

_LOST = "its controller ended; runs again from its newest checkpoint"


def begin_session(journal: Journal, study: Suggester, spec: SweepSpec) -> None:
    """Write that a controller begins, and, where the log has none, the points to try first."""
    found = journal.found
    begun, seeded = (0, False) if found is None else (len(found.trials), found.seeded)
    points: list[Raw] = []
    if not seeded:  # errors in it leave no session behind
        points = study.first(begun, lambda other: earlier(other, spec.study.objective))
    journal.session(spec)
    if not seeded:
        journal.queued(points)


def recover(desk: Desk) -> None:
    """Make the log, Optuna and the tracker agree before the first new decision."""
    _end_refused(desk)
    view = desk.journal.view
    missed = set(view.trials) - desk.tracker.ended_trials()
    project_tracker(view, desk.journal.path, desk.tracker, missed)
    project_study(view, desk.study, desk.folder)
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


def _end_refused(desk: Desk) -> None:
    """Trials whose point was no valid job, if their controller died before it had written so."""
    for number, trial in list(desk.journal.view.trials.items()):
        if not trial.params and not trial.state.final:
            reason = "bad-configuration: the point is no valid job"
            desk.journal.ended(number, TrialState.FAILED, reason)
