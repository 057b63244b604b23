"""What becomes of a trial whose job has ended: pure, from its view and the job's last word."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.events import Failed, Finished, Stopped
from orchestrator.remedy import Action, memory_shape, remedy
from orchestrator.state import TrialState, TrialView
from sweeps.decision import Verdict
from sweeps.objective import objective_value
from sweeps.spec import SweepSpec

LastWord = Failed | Stopped | Finished
_OWN_FAULT = ("diverged", "bad-configuration", "bad-data", "error")
_NO_PAUSE = (*_OWN_FAULT, "disk-full")


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """Why all jobs are being stopped; their trials wait for later.

    final: the sweep is over unless its budget grows, so trials that a rule had paused end.
    """

    reason: str
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What to write and do; a state that is not final means that the trial runs again.

    halt: why the whole sweep must stop, None if it need not. lowered: shape and new micro-batch.
    """

    state: TrialState
    reason: str
    objective: float | None = None
    counted: bool = False
    lowered: tuple[str, int] | None = None
    halt: str | None = None


def ending(trial: TrialView, word: LastWord, sweep: SweepSpec, leaving: Leaving | None) -> Ending:
    """How the attempt that ended with `word` leaves its trial."""
    if isinstance(word, Finished):
        return _finished(trial, word, sweep)
    if trial.verdict is Verdict.PRUNE:
        return Ending(state=TrialState.PRUNED, reason=trial.verdict_reason)
    if trial.verdict is Verdict.PAUSE and not (isinstance(word, Failed) and word.kind in _NO_PAUSE):
        state = TrialState.PRUNED if leaving is not None and leaving.final else TrialState.PAUSED
        return Ending(state=state, reason=trial.verdict_reason)
    if isinstance(word, Failed) and (leaving is None or word.kind in _OWN_FAULT):
        return _failed(trial, word, sweep)
    if leaving is not None:
        return Ending(state=TrialState.PAUSED, reason=leaving.reason)
    reason = f"preempted: {word.reason}; runs again from its checkpoint"
    return Ending(state=TrialState.PREEMPTED, reason=reason)


def _finished(trial: TrialView, word: Finished, sweep: SweepSpec) -> Ending:
    if not trial.scores or trial.scores[-1].samples != word.samples:
        reason = f"error: it finished without a score at {word.samples:,} samples"
        return Ending(state=TrialState.FAILED, reason=reason)
    value = objective_value(sweep.study.objective, trial.scores[-1])
    if not math.isfinite(value):
        reason = f"diverged: {sweep.study.objective} is {value} at {trial.samples:,} samples"
        return Ending(state=TrialState.FAILED, reason=reason)
    reason = "" if trial.feasible else f"does not count: {trial.violation}"
    return Ending(state=TrialState.COMPLETE, reason=reason, objective=value)


def _failed(trial: TrialView, word: Failed, sweep: SweepSpec) -> Ending:
    resources = sweep.resources.of(trial.workers)
    chosen = remedy(
        word,
        job=trial.job,
        workers=resources.workers,
        restarts=trial.restarts,
        limit=resources.max_restarts,
    )
    lowered = None
    if chosen.micro_batch is not None:
        lowered = (memory_shape(trial.job, resources.workers), chosen.micro_batch)
    return Ending(
        state=chosen.state,
        reason=chosen.reason,
        counted=chosen.counted,
        lowered=lowered,
        halt=chosen.reason if chosen.action is Action.HALT else None,
    )
