"""`mirsweep plan`: what a recipe would do, checked and shown without starting anything."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.preflight import check_job, this_machine
from orchestrator.commands.run import Recipe, Settings, Trials, read_recipe

if TYPE_CHECKING:
    from jobs.events import Event
    from jobs.spec import JobSpec
    from orchestrator.calibration import Estimate
    from orchestrator.ports import Capacity
    from sweeps.spec import SweepSpec


def plan(
    recipe: Recipe,
    trials: Trials = None,
    changes: Settings = None,
    variants: Annotated[int, typer.Option(min=0, max=50, help="Sampled variants to show.")] = 5,
    measure: Annotated[
        bool,
        typer.Option("--calibrate", help="Run a few steps here to estimate time and cost."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and show what it would run."""
    from orchestrator.views.plan import plan_json, render_plan
    from orchestrator.views.preview import preview
    from orchestrator.views.terminal import terminal

    spec = read_recipe(recipe, trials, changes)
    check_job(f"{recipe}: base.", spec.base)
    drawn = preview(spec, variants)
    machine = this_machine()
    found = _calibrated(spec, machine) if measure else None
    if as_json:
        print_json(plan_json(spec, drawn, machine, found))
        return
    terminal().print(render_plan(spec, drawn, machine, found))


def _calibrated(spec: SweepSpec, machine: Capacity) -> Estimate:
    """The estimate from a shortened base job, run in a folder that is thrown away."""
    from jobs.launch import run_local
    from orchestrator.calibration import calibrate, estimate
    from orchestrator.placement import job_slots

    device = "cuda" if spec.resources.gpus_per_worker else "cpu"
    with tempfile.TemporaryDirectory(prefix="mirsweep-calibrate-") as folder:

        def run(job: JobSpec, hear: Callable[[Event], None]) -> Event:
            return run_local(job, spec.resources.workers, Path(folder), hear, device=device)

        return estimate(spec, calibrate(spec.base, run), job_slots(machine, spec.resources))
