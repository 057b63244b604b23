"""Writes a study's report: `index.html` and the pictures beside it."""

from __future__ import annotations

from pathlib import Path

from jobs.files import written_whole
from orchestrator.report.page import page
from orchestrator.report.pngs import write_pngs
from orchestrator.state import SweepView

PAGE = "index.html"


def write_report(view: SweepView, folder: Path) -> Path:
    """Write the page and its pictures into `folder`, made if need be; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pngs(view, folder)
    path = folder / PAGE
    with written_whole(path) as part:
        part.write_text(page(view), encoding="utf-8")
    return path
