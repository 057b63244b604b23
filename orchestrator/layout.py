"""Where things are in a study's folder, for those who only look as well."""

from __future__ import annotations

from pathlib import Path, PurePath

from orchestrator.state import TrialView

TRIALS, CHECKPOINTS = "trials", "checkpoints"


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial keeps its checkpoints and logs, in the study's folder."""
    return folder / TRIALS / f"{number:04d}"


def checkpoint_of(folder: Path, trial: TrialView) -> Path | None:
    """A trial's newest checkpoint, None if it has none; an absolute path.

    The log has the path that the trial's worker wrote to. A study that was moved since, or is
    mounted elsewhere here, has it in its own folder all the same.
    """
    if not trial.checkpoint:
        return None
    name = PurePath(trial.checkpoint).name
    return trial_folder(folder, trial.number).absolute() / CHECKPOINTS / name


def kept_checkpoint(folder: Path, trial: TrialView) -> Path | None:
    """The same, None also where it has gone: retention keeps few of them."""
    checkpoint = checkpoint_of(folder, trial)
    return checkpoint if checkpoint is not None and checkpoint.exists() else None
