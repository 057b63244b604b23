"""A study's folder as its controller begins: made, checked, taken away if nothing came of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mir.errors import ConfigError, MirsweepError
from orchestrator.eventlog import LOG_NAME
from sweeps.identity import first_change, identity
from sweeps.spec import SweepSpec


@contextmanager
def study_folder(folder: Path) -> Iterator[None]:
    """The folder exists inside; a new one is taken away again if the sweep could not begin."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the study's folder cannot be made ({error.strerror}). Choose another one"
        ) from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder}: the study's folder cannot be written. Choose another one")
    try:
        yield
    except MirsweepError:
        if new and not _begun(folder):
            shutil.rmtree(folder)
        raise


def require_same(folder: Path, found: SweepSpec, now: SweepSpec) -> None:
    """Raise ConfigError where the study in a folder was begun with another recipe."""
    change = first_change(identity(found), identity(now))
    if change is not None:
        raise ConfigError(
            f"{folder}: the study was begun with another recipe: {change}. Restore "
            "the recipe, or give it another name or folder"
        )


def _begun(folder: Path) -> bool:
    log = folder / LOG_NAME
    return log.exists() and log.stat().st_size > 0
