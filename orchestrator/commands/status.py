"""`mirsweep status`: how a study stands, from any terminal, while it runs or afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.commands.options import AsJson, Study, json_line, print_json
from orchestrator.commands.studies import load_study

if TYPE_CHECKING:
    from orchestrator.earlier import Read
    from orchestrator.state import SweepView


def status(
    study: Study,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing it until the sweep has ended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how a study stands: a line a trial, the best so far, time left."""
    from orchestrator.ledger import ledger
    from orchestrator.views.live import LiveView, render
    from orchestrator.views.terminal import terminal

    folder, view = load_study(study)
    if as_json:
        from orchestrator.earlier import earlier_studies

        studies = earlier_studies(view.spec.study)
        if not watch:
            print_json(_facts(view, folder, studies))
            return
        for now in _changes(folder, view):
            typer.echo(json_line(_facts(now, folder, studies)))
        return
    console = terminal()
    if watch and console.is_terminal:
        with LiveView(console) as live:
            for now in _changes(folder, view):
                live(now)
                view = now
    room = len(view.trials) + 20
    console.print(render(view, view.updated, console.width, room))
    for name, text in ledger(view, view.updated).lines():
        console.print(f"{name:<16}{text}", style="dim", highlight=False)
    if view.ended is None:
        age = time.time() - view.updated
        console.print(f"last sign of life {age:.0f} s ago", style="dim", highlight=False)


def _facts(view: SweepView, folder: Path, studies: Sequence[Read]) -> dict[str, Any]:
    """The sweep, and how the studies that it began from rank what both have tried."""
    from orchestrator.earlier import transfers
    from orchestrator.views.as_json import sweep_json

    compared = [asdict(found) for found in transfers(view, studies)]
    return {**sweep_json(view, view.updated, folder), "warm_start": compared}


def _changes(folder: Path, view: SweepView) -> Iterator[SweepView]:
    """The study whenever it has changed, until it has ended or nobody runs it; at least once."""
    from orchestrator.follow import Follower

    yield view
    if view.ended is None:
        told = view.updated
        for now in Follower(folder).views():
            if now.updated > told:
                told = now.updated
                yield now
