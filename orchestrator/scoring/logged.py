"""What a checkpoint's own job logged, beside a score of the same weights on other pairs."""

from __future__ import annotations

from pathlib import Path

from mir.errors import ProtocolError
from mir.report import MirReport
from orchestrator.executors.scores import SCORES, read_scores
from orchestrator.views.text import plus_minus


def logged_beside(model: str, report: MirReport) -> str | None:
    """One line on the score that the job logged where it saved this checkpoint, None if it has
    logged none there or `model` is no checkpoint.

    A job takes its pairs from its own validation data, in an order of its own, so that even the
    same pictures make another protocol here, and another error bar.
    """
    from jobs.checkpoint import open_checkpoint
    from jobs.downstream.start import find_checkpoint

    folder = Path(model)
    if not (folder / "job.json").is_file() and not any(folder.glob("checkpoints/samples-*")):
        return None
    path = find_checkpoint(model)
    samples = open_checkpoint(path)[0].progress.samples
    kept = read_scores(path.parent.parent / SCORES)
    logged = next((score.report for score in kept if score.samples == samples), None)
    if logged is None:
        return None
    known = f"its job logged MIR {plus_minus(logged.mir, logged.standard_error)} at {samples:,}"
    try:
        report.require_comparable(logged)
    except ProtocolError as error:
        return f"{known} samples; {error} (here against there)"
    return f"{known} samples, by the same protocol"
