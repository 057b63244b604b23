"""`mirsweep list`: the studies below a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.studies import RUNS, study_folders


def list_studies(
    folder: Annotated[Path, typer.Argument(help="Folder that holds studies.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """List the studies in a folder."""
    from rich.markup import escape
    from rich.table import Table

    from orchestrator.fold import load_view
    from orchestrator.views.as_json import sweep_json
    from orchestrator.views.terminal import terminal

    found = [(child, load_view(child)) for child in study_folders(folder)]
    facts = [
        {**sweep_json(view, view.updated, child), "folder": str(child)} for child, view in found
    ]
    if as_json:
        print_json([{k: v for k, v in fact.items() if k != "trials"} for fact in facts])
        return
    if not found:
        typer.echo(f"no studies in {folder}; `mirsweep run RECIPE` makes one")
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("study", "trials finished", "best trial", "MIR", "state"):
        table.add_column(name)
    for fact in facts:
        best = fact["best_trial"]
        mir = next((t["mir"] for t in fact["trials"] if t["trial"] == best), None)
        table.add_row(
            escape(fact["folder"]),
            f"{fact['trials_finished']} of {fact['trials_budget']}",
            "-" if best is None else str(best),
            "-" if mir is None else f"{mir:.2f}",
            "not ended" if fact["running"] else "ended",
        )
    terminal().print(table)
