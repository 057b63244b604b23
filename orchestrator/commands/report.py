"""`mirsweep report`: one page and its pictures, at any time, also while the sweep runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.preflight import check_folder
from orchestrator.commands.studies import load_study


def report(
    study: Study,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page; STUDY/report if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a study's report: one HTML page and PNG pictures."""
    folder, view = load_study(study)
    place = out or folder / "report"
    check_folder(place)

    from orchestrator.report.write import write_report

    page = write_report(view, place)
    if as_json:
        pictures = [str(path) for path in sorted(place.glob("*.png"))]
        print_json({"study": str(folder), "page": str(page), "pictures": pictures})
        return
    typer.echo(str(page))
