"""`mirsweep logs`: what the ranks of a trial wrote to their terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from mir.errors import ConfigError
from orchestrator.commands.options import AsLines, Study, TrialNumber, json_line
from orchestrator.commands.studies import find_trial, load_study

_POLL_S = 0.5


def logs(
    study: Study,
    trial: TrialNumber,
    rank: Annotated[int, typer.Option(min=0, help="Which rank's output.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing until the trial has ended.")
    ] = False,
    as_json: AsLines = False,
) -> None:
    """Print what a trial's job wrote while it ran."""
    from orchestrator.layout import trial_folder

    folder, view = load_study(study)
    chosen = find_trial(view, trial)
    final = chosen.state.final
    path = trial_folder(folder, trial) / f"rank{rank}.log"
    if follow and not final and rank < view.spec.resources.of(chosen.workers).workers:
        _until_begun(folder, trial, path)
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such log. The trial has not started, has fewer ranks, or ran with "
            "--executor inline, which writes to the terminal"
        )
    reader = _Reader(path, {"trial": trial, "rank": rank} if as_json else None)
    for _ in _until_ended(folder, trial) if follow and not final else ():
        reader.read()
    reader.read(last=True)
    if not reader.found:
        typer.echo(
            f"{path}: empty: rank {rank} wrote nothing. What the trial did: "
            f"mirsweep show {study} {trial}",
            err=True,
        )


def _until_begun(folder: Path, number: int, path: Path) -> None:
    """Wait for a trial's output, and say so, until it is there, has ended or nobody runs it."""
    said = False
    for _ in _until_ended(folder, number):
        if path.is_file():
            return
        if not said:
            typer.echo(f"trial {number} waits for its turn; its output will be in {path}", err=True)
            said = True


def _until_ended(folder: Path, number: int) -> Iterator[None]:
    """One turn for each look, until the trial has ended or nobody runs it."""
    from orchestrator.follow import Follower

    follower = Follower(folder)
    while follower.pulse.alive() and not find_trial(follower.look(), number).state.final:
        yield
        time.sleep(_POLL_S)


class _Reader:
    """Prints what a file has more than at the last look; about: fields of each line of JSON."""

    def __init__(self, path: Path, about: dict[str, int] | None) -> None:
        self._path, self._about = path, about
        self._offset = 0
        self._cut = b""

    @property
    def found(self) -> bool:
        """Whether there was anything."""
        return self._offset > 0

    def read(self, *, last: bool = False) -> None:
        """Print the news. last: also a line that has no end yet."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        self._offset += len(text)
        if self._about is None:
            typer.echo(text.decode("utf-8", errors="replace"), nl=False)
            return
        *whole, self._cut = (self._cut + text).split(b"\n")
        if last and self._cut:
            whole.append(self._cut)
        for line in whole:
            said = line.decode("utf-8", errors="replace")
            typer.echo(json_line({**self._about, "text": said}))
