"""The best trial as a job file that `mirsweep train` takes."""

from __future__ import annotations

from pathlib import Path

from jobs.files import written_whole
from orchestrator.state import SweepView
from orchestrator.views.standing import NAMES, best_trial
from orchestrator.views.text import plus_minus, settings


def write_best(view: SweepView, folder: Path) -> Path | None:
    """Write `best.yaml` with a comment on where it comes from; None without a best trial."""
    from sweeps.recipe import dump_job

    best = best_trial(view)
    if best is None:
        return None
    last = best.scores[-1].mir
    head = (
        f"# Best by {NAMES[view.spec.study.objective]}: trial {best.number} of "
        f"{view.spec.name!r}, MIR {plus_minus(last['mir'], last['standard_error'])}\n"
        f"# {settings(best.params)}\n"
        "# Train it again with: mirsweep train best.yaml\n"
    )
    path = folder / "best.yaml"
    with written_whole(path) as part:
        part.write_text(head + dump_job(best.job), encoding="utf-8")
    return path
