"""Where things are in a study's folder, for those who only look as well."""

from __future__ import annotations

from pathlib import Path

TRIALS = "trials"


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial keeps its checkpoints and logs, in the study's folder."""
    return folder / TRIALS / f"{number:04d}"
