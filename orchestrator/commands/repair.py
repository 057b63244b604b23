"""`mirsweep repair`: mends a study whose event log is damaged."""

from __future__ import annotations

import typer

from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.studies import study_folder


def repair(study: Study, as_json: AsJson = False) -> None:
    """Mend a damaged event log, and say what was lost."""
    from orchestrator.mend import rebuild, repair_log

    folder = study_folder(study)
    done = repair_log(folder)
    if done.lost:
        # Optuna may know more than the log does now, and the log is the truth.
        rebuild(folder, None)
    if as_json:
        backup = None if done.backup is None else str(done.backup)
        print_json({"kept": done.kept, "lost": list(done.lost), "backup": backup})
        return
    if not done.lost:
        typer.echo(f"{folder}: all {done.kept} records are whole; nothing to mend")
        return
    for line in done.lost:
        typer.echo(f"lost: {line}")
    typer.echo(
        f"kept {done.kept} records and made Optuna's study again from them. The log as it was: "
        f"{done.backup}. `mirsweep run` goes on; what was lost runs again"
    )
