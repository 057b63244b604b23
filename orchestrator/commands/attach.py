"""`mirsweep attach`: follow a sweep that another terminal, or `run --detach`, has started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mir.errors import ClusterError, ConfigError, DataError
from orchestrator.commands.options import AsLines, Study, json_line
from orchestrator.commands.studies import RUNS, load_study
from orchestrator.failures import INTERRUPTED, say_error

if TYPE_CHECKING:
    from orchestrator.follow import Pulse
    from orchestrator.state import SweepView
    from orchestrator.views.live import LiveView
    from orchestrator.views.plain import PlainView
    from orchestrator.views.stream import StreamView

_LOOK_S = 0.5


def attach(
    study: Study,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a controller to begin.")
    ] = 30.0,
    as_json: AsLines = False,
) -> None:
    """Follow a running sweep until it ends. Ctrl-C leaves it running."""
    from orchestrator.follow import Follower

    deadline = time.monotonic() + wait
    folder, view = _begun(study, deadline)
    with _screen(folder, as_json) as screen:
        if view.ended is None:
            follower = Follower(folder)
            _controlled(folder, follower.pulse, deadline)
            for view in follower.views():
                screen(view)
            _check_left(folder, view, follower.pulse)
        else:
            screen(view)
    _last_word(view, as_json)


def _begun(study: str, deadline: float) -> tuple[Path, SweepView]:
    """The study; a controller that has just been started is given time to begin its log."""
    while True:
        try:
            return load_study(study)
        except (ConfigError, DataError):
            coming = Path(study).is_dir() or (RUNS / study).is_dir()
            if not coming or time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_S)


def _controlled(folder: Path, pulse: Pulse, deadline: float) -> None:
    while not pulse.alive():
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"{folder}: no controller runs this study. `mirsweep run RECIPE` goes on with it"
            )
        time.sleep(_LOOK_S)


def _screen(folder: Path, as_json: bool) -> LiveView | PlainView | StreamView:
    from orchestrator.views.live import LiveView
    from orchestrator.views.plain import PlainView
    from orchestrator.views.stream import StreamView
    from orchestrator.views.terminal import terminal

    if as_json:
        return StreamView(lambda change: typer.echo(json_line(change)), folder)
    console = terminal()
    return LiveView(console) if console.is_terminal else PlainView(typer.echo)


def _check_left(folder: Path, view: SweepView, pulse: Pulse) -> None:
    """Leave with an error unless the sweep has ended, as `mirsweep run` would have."""
    if view.ended is not None:
        return
    if not pulse.left:
        raise ClusterError(
            f"{folder}: its controller has died. `mirsweep run RECIPE` goes on with it"
        )
    say_error(view.note or "its controller has left; `mirsweep run RECIPE` goes on with it")
    raise typer.Exit(INTERRUPTED)


def _last_word(view: SweepView, as_json: bool) -> None:
    from orchestrator.views.standing import best_trial

    if not as_json:
        typer.echo(view.note or "the sweep has ended")
    if best_trial(view) is None:
        say_error("no trial finished with a score that counts; the report says why for each")
        raise typer.Exit(1)
