"""Studies on disk: which folders are one, and which one the user means."""

from __future__ import annotations

import difflib
from pathlib import Path

from mir.errors import ConfigError
from orchestrator.eventlog import LOG_NAME
from orchestrator.state import SweepView, TrialView

RUNS = Path("runs")


def study_folders(folder: Path) -> list[Path]:
    """Folders directly below `folder` that hold a study, by name."""
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if (child / LOG_NAME).is_file())


def study_folder(study: str) -> Path:
    """The folder of a study given by its path, or by its name below `runs`.

    Raises ConfigError that lists the known studies.
    """
    for folder in (Path(study), RUNS / study):
        if (folder / LOG_NAME).is_file():
            return folder
    known = [folder.name for folder in study_folders(RUNS)]
    close = difflib.get_close_matches(study, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    names = ", ".join(known) if known else "none yet, `mirsweep run RECIPE` makes one"
    raise ConfigError(f"STUDY: {study!r} is no study. {hint}Known in {RUNS}/: {names}")


def load_study(study: str) -> tuple[Path, SweepView]:
    """Folder and state of a study given by path or name."""
    from orchestrator.fold import load_view

    folder = study_folder(study)
    return folder, load_view(folder)


def find_trial(view: SweepView, number: int) -> TrialView:
    """The trial of that number. Raises ConfigError that says which numbers there are."""
    if number in view.trials:
        return view.trials[number]
    known = sorted(view.trials)
    having = f"trials {known[0]} to {known[-1]}" if known else "no trials yet"
    raise ConfigError(f"TRIAL: {number} is not in study {view.spec.name!r}, which has {having}")
