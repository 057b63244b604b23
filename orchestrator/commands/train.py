"""`mirsweep train`: one job without a sweep."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.preflight import check_data, check_folder

if TYPE_CHECKING:
    from jobs.events import Event


def train(
    job: Annotated[Path, typer.Argument(help="Job file, e.g. the best.yaml of a sweep.")],
    workers: Annotated[int, typer.Option(min=1, help="Ranks on this machine.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where checkpoints go and are resumed from; runs/JOB if not given."),
    ] = None,
) -> None:
    """Train one job, scoring its MIR as it goes. Run it again to resume."""
    from sweeps.recipe import load_job

    spec = load_job(job)
    place = folder or Path("runs") / job.stem
    check_folder(place)
    check_data(f"{job}: data", spec.data)

    from jobs.launch import run_local

    last = run_local(spec, workers, place, _say)
    typer.echo(f"checkpoints: {place}")
    if last.event != "finished":
        raise typer.Exit(1)


def _say(event: Event) -> None:
    from orchestrator.views.job import job_line

    line = job_line(event)
    if line is not None:
        typer.echo(f"{time.strftime('%H:%M:%S')} {line}")
        sys.stdout.flush()
