"""`mirsweep plan`: what a recipe would do, checked and shown without starting anything."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.preflight import check_data, jobs_at_once, this_machine
from orchestrator.commands.run import Recipe, Settings, Trials, read_recipe


def plan(
    recipe: Recipe,
    trials: Trials = None,
    changes: Settings = None,
    preview: Annotated[int, typer.Option(min=0, max=50, help="Sampled variants to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and show what it would run."""
    from rich.console import Console
    from sweeps.space import preview_params

    from orchestrator.views.plan import plan_json, render_plan

    spec = read_recipe(recipe, trials, changes)
    check_data(f"{recipe}: base.data", spec.base.data)
    variants = preview_params(spec, preview)
    machine = this_machine()
    at_once = jobs_at_once(spec.resources, machine)
    if as_json:
        print_json(plan_json(spec, variants, machine, at_once))
        return
    console = Console()
    console.print(render_plan(spec, variants, machine, at_once))
