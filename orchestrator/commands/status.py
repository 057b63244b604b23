"""`mirsweep status`: how a study stands, from any terminal, while it runs or afterwards."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.studies import load_study

_REFRESH_S = 1.0


def status(
    study: Study,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing it until the sweep has ended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how a study stands: a line a trial, the best so far, time left."""
    from orchestrator.ledger import ledger
    from orchestrator.views.as_json import sweep_json
    from orchestrator.views.live import LiveView, render
    from orchestrator.views.terminal import terminal

    folder, view = load_study(study)
    if as_json:
        print_json(sweep_json(view, view.updated))
        return
    console = terminal()
    if watch and console.is_terminal:
        with LiveView(console) as live:
            while view.ended is None:
                live(view)
                time.sleep(_REFRESH_S)
                _, view = load_study(str(folder))
    room = len(view.trials) + 20
    console.print(render(view, view.updated, console.width, room))
    for name, text in ledger(view, view.updated).lines():
        console.print(f"{name:<16}{text}", style="dim", highlight=False)
    if view.ended is None:
        age = time.time() - view.updated
        console.print(f"last sign of life {age:.0f} s ago", style="dim", highlight=False)
