"""`mirsweep logs`: what the ranks of a trial wrote to their terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mir.errors import ConfigError
from orchestrator.commands.options import Study, TrialNumber
from orchestrator.commands.studies import find_trial, load_study

_POLL_S = 0.5


def logs(
    study: Study,
    trial: TrialNumber,
    rank: Annotated[int, typer.Option(min=0, help="Which rank's output.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing until the trial has ended.")
    ] = False,
) -> None:
    """Print what a trial's job wrote while it ran."""
    from orchestrator.desk import trial_folder

    folder, view = load_study(study)
    find_trial(view, trial)
    path = trial_folder(folder, trial) / f"rank{rank}.log"
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such log. The trial has not started, has fewer ranks, or ran with "
            "--executor inline, which writes to the terminal"
        )
    offset = _print_from(path, 0)
    while follow and not find_trial(load_study(str(folder))[1], trial).state.final:
        time.sleep(_POLL_S)
        offset = _print_from(path, offset)
    if follow:
        offset = _print_from(path, offset)
    if not offset:
        typer.echo(
            f"{path}: empty: rank {rank} wrote nothing. What the trial did: "
            f"mirsweep show {study} {trial}",
            err=True,
        )


def _print_from(path: Path, offset: int) -> int:
    """Print what was written after `offset` and return the new one."""
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read()
    if text:
        typer.echo(text.decode("utf-8", errors="replace"), nl=False)
    return offset + len(text)
