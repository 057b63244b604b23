"""`mirsweep report`: one page and its pictures, at any time, also while the sweep runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import Study
from orchestrator.commands.preflight import check_folder
from orchestrator.commands.studies import load_study


def report(
    study: Study,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page; STUDY/report if not given.")
    ] = None,
) -> None:
    """Write a study's report: one HTML page and PNG pictures."""
    folder, view = load_study(study)
    place = out or folder / "report"
    check_folder(place)

    from orchestrator.report.write import write_report

    typer.echo(str(write_report(view, place)))
