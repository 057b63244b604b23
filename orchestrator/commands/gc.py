"""`mirsweep gc`: removes the checkpoints that a study's retention does not keep."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.studies import load_study


def gc(
    study: Study,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove checkpoints that the study does not keep. A running sweep does so by itself."""
    from orchestrator.layout import TRIALS
    from orchestrator.lease import lease
    from orchestrator.retention import all_stored, removals, remove

    folder, view = load_study(study)
    with nullcontext() if dry_run else lease(folder):
        going = removals(view, all_stored(folder / TRIALS))
        if not dry_run:
            for removal in going:
                remove(removal.stored)
    size = sum(removal.stored.size for removal in going)
    if as_json:
        rows = [
            {"path": str(r.stored.path), "bytes": r.stored.size, "reason": r.reason} for r in going
        ]
        print_json({"dry_run": dry_run, "bytes": size, "removed": rows})
        return
    for removal in going:
        typer.echo(f"{removal.stored.path}: {removal.reason}")
    word = "would go" if dry_run else "removed"
    typer.echo(f"{len(going)} checkpoints {word}, {size / 2**20:,.1f} MiB")
