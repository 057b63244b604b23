"""`mirsweep train`: one job without a sweep."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import AsLines, json_line
from orchestrator.commands.preflight import check_any, check_folder, this_machine
from orchestrator.failures import INTERRUPTED, same_command, say_error

if TYPE_CHECKING:
    from jobs.events import Event

_STEPS_S = 2.0
_YOURS = ("bad-configuration", "bad-data")


class Device(StrEnum):
    """What a rank computes on."""

    CPU = "cpu"
    CUDA = "cuda"


def train(
    job: Annotated[Path, typer.Argument(help="Job file, e.g. the best.yaml of a sweep.")],
    workers: Annotated[int, typer.Option(min=1, help="Ranks on this machine.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where checkpoints go and are resumed from; runs/JOB if not given."),
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="cuda if every rank finds a GPU, else cpu.")
    ] = None,
    as_json: AsLines = False,
) -> None:
    """Train one job, scoring its MIR as it goes. Run it again to resume.

    A job file with `kind: finetune` goes on from a checkpoint, one with `kind: evaluate` asks a
    checkpoint questions and trains nothing.
    """
    from sweeps.recipe import load_any_job

    spec = load_any_job(job)
    place = folder or Path("runs") / job.stem
    check_folder(place)
    check_any(f"{job}: ", spec)

    from jobs.events import Failed, Stopped
    from jobs.launch import run_local
    from jobs.spec.downstream import EvaluateSpec
    from orchestrator.executors.scores import keep_scores

    place.mkdir(parents=True, exist_ok=True)
    tell = _Teller(as_json)

    def hear(event: Event) -> None:
        keep_scores(event, place)
        tell(event)

    chosen = device or (Device.CUDA if workers <= this_machine().nodes[0][1] else Device.CPU)
    last = run_local(spec, workers, place, hear, device=chosen.value)
    if isinstance(last, Failed):
        say_error(last.reason)
        raise typer.Exit(2 if last.kind in _YOURS else 1)
    if isinstance(last, Stopped):
        say_error(f"{last.reason}. Go on with: {same_command()}")
        raise typer.Exit(INTERRUPTED)
    if not isinstance(spec, EvaluateSpec) and not as_json:
        typer.echo(f"checkpoints: {place}")


class _Teller:
    """Prints what the job says; of its steps only some, or a long run would print nothing else.

    as_json: all events as lines of JSON instead.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._told = 0.0

    def __call__(self, event: Event) -> None:
        from jobs.events import Step
        from orchestrator.views.job import job_line

        if self._as_json:
            typer.echo(json_line({"time": time.time(), **event.model_dump(mode="json")}))
            return
        now = time.monotonic()
        if isinstance(event, Step):
            if now - self._told < _STEPS_S:
                return
            self._told = now
        typer.echo(f"{time.strftime('%H:%M:%S')} {job_line(event)}")
        sys.stdout.flush()
