"""A sweep as JSON for programs: the fields that `status --json` and `show --json` print."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.front import pareto
from orchestrator.layout import kept_checkpoint
from orchestrator.ledger import ledger
from orchestrator.state import SweepView, TrialView
from orchestrator.views.standing import best_trial, elapsed, finished, seconds_left


def sweep_json(view: SweepView, now: float, folder: Path) -> dict[str, Any]:
    """The sweep in `folder` with a short entry for each trial."""
    best = best_trial(view)
    return {
        "name": view.spec.name,
        "trials_budget": view.spec.budget.trials,
        "trials_finished": len(finished(view)),
        "running": view.ended is None,
        "note": view.note,
        "seconds": elapsed(view, now),
        "seconds_left": None if view.ended is not None else seconds_left(view, now),
        "best_trial": best.number if best else None,
        "pareto": pareto(view),
        "ledger": asdict(ledger(view, now)),
        "trials": [trial_json(view.trials[number], folder) for number in sorted(view.trials)],
    }


def trial_json(trial: TrialView, folder: Path) -> dict[str, Any]:
    """One trial of the study in `folder` with its newest reading."""
    checkpoint = kept_checkpoint(folder, trial)
    last = trial.scores[-1] if trial.scores else None
    return {
        "trial": trial.number,
        "state": trial.state.value,
        "reason": trial.reason,
        "waiting": trial.waiting,
        "workers": trial.workers,
        "attempt": trial.attempt,
        "samples": trial.samples,
        "budget": trial.budget,
        "mir": last.mir["mir"] if last else None,
        "mir_standard_error": last.mir["standard_error"] if last else None,
        "mir_variant": last.mir["protocol"]["variant"] if last else None,
        "mir_before": trial.scores[0].mir["mir"] if trial.scores else None,
        "validation_loss": last.guard.validation_loss if last else None,
        "gap": last.guard.gap if last else None,
        "feasible": trial.feasible,
        "violation": trial.violation,
        "params": dict(trial.params),
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }


def trial_details_json(trial: TrialView, folder: Path) -> dict[str, Any]:
    """One trial with all its scores and its whole job."""
    return {
        **trial_json(trial, folder),
        "skipped": trial.skipped,
        "seconds": trial.seconds,
        "scores": [score.model_dump(mode="json") for score in trial.scores],
        "job": trial.job.to_json(),
    }
