"""`mirsweep attach`: follow a sweep that another terminal, or `run --detach`, has started."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mir.errors import ClusterError
from orchestrator.commands.options import Study
from orchestrator.commands.studies import load_study

_LOOK_S = 1.0


def attach(
    study: Study,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a controller to begin.")
    ] = 30.0,
) -> None:
    """Follow a running sweep until it ends. Ctrl-C leaves it running."""
    from orchestrator.control import controlled
    from orchestrator.views.live import LiveView
    from orchestrator.views.plain import PlainView
    from orchestrator.views.terminal import terminal

    folder, view = load_study(study)
    deadline = time.monotonic() + wait
    while view.ended is None and not controlled(folder):
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"{folder}: no controller runs this study. `mirsweep run RECIPE` goes on with it"
            )
        time.sleep(_LOOK_S)
        _, view = load_study(str(folder))
    console = terminal()
    screen = LiveView(console) if console.is_terminal else PlainView(typer.echo)
    with screen:
        screen(view)
        while view.ended is None and controlled(folder):
            time.sleep(_LOOK_S)
            _, view = load_study(str(folder))
            screen(view)
    typer.echo(view.note or "the sweep has ended")
