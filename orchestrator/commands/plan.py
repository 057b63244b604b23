"""`mirsweep plan`: what a recipe would do, checked and shown without starting anything."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mir.errors import ConfigError
from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.preflight import check_sweep, existing, this_machine
from orchestrator.commands.run import Folder, Recipe, Settings, Trials, read_recipe
from orchestrator.commands.studies import RUNS

if TYPE_CHECKING:
    from orchestrator.calibration import Estimate
    from orchestrator.ports import Capacity
    from orchestrator.views.plan import Where
    from sweeps.spec import SweepSpec


def plan(
    recipe: Recipe,
    folder: Folder = None,
    trials: Trials = None,
    changes: Settings = None,
    variants: Annotated[int, typer.Option(min=0, max=50, help="Sampled variants to show.")] = 5,
    measure: Annotated[
        bool,
        typer.Option("--calibrate", help="Run a few steps to estimate time and cost."),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster to ask, and calibrate on; this machine if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and show what it would run, and whether each variant fits the cluster."""
    from orchestrator.views.plan import Where, plan_json, render_plan
    from orchestrator.views.preview import sampled
    from orchestrator.views.terminal import terminal

    spec = read_recipe(recipe, trials, changes)
    place = folder or RUNS / spec.name
    check_sweep(recipe, spec, place)
    drawn = sampled(spec, variants)
    machine = this_machine()
    where = Where("this machine", machine, machine) if address is None else _cluster(address)
    found = _calibrated(spec, where.capacity, address, place) if measure else None
    if as_json:
        print_json(plan_json(spec, drawn, where, found))
        return
    terminal().print(render_plan(spec, drawn, where, found))


def _cluster(address: str) -> Where:
    """What a running cluster has, and what is free of it now."""
    from contextlib import closing

    from orchestrator.executors.ray_executor import RayExecutor
    from orchestrator.views.plan import Where

    with closing(RayExecutor(address)) as executor:
        return Where(f"the cluster at {address}", executor.capacity(), executor.free())


def _calibrated(spec: SweepSpec, cluster: Capacity, address: str | None, study: Path) -> Estimate:
    """The estimate from shortened base jobs, run in a folder that is thrown away.

    study: a cluster's nodes see what lies beside its folder.
    """
    from contextlib import closing

    from orchestrator.calibration import calibrate, estimate
    from orchestrator.executors.ray_executor import RayExecutor
    from orchestrator.placement import job_slots, require_fit
    from sweeps.space import space_of

    job = largest = spec.resources.of(max(space_of(spec).sizes()))
    beside: Path | None = existing(study.resolve())
    if address is None:
        # What this machine is asked for; other resources and several nodes are the cluster's.
        job = largest.model_copy(update={"custom": {}, "spread": "pack", "autoscale": False})
        beside = None
        try:
            require_fit(this_machine(), job)
        except ConfigError as error:
            raise ConfigError(f"--calibrate: here, {error}, or leave it out") from error
    with tempfile.TemporaryDirectory(prefix="mirsweep-calibrate-", dir=beside) as folder:
        with closing(RayExecutor(address)) as executor:
            require_fit(executor.capacity(), job)
            room = executor.capacity() if address is None else executor.free()
            at_once = min(job_slots(room, job), spec.budget.trials)
            found = calibrate(spec.base, executor, job, max(1, at_once), Path(folder))
        return estimate(spec, found, job_slots(cluster, largest))
