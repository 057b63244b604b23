"""`mirsweep plan`: what a recipe would do, checked and shown without starting anything."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.preflight import check_job, this_machine
from orchestrator.commands.run import Recipe, Settings, Trials, read_recipe


def plan(
    recipe: Recipe,
    trials: Trials = None,
    changes: Settings = None,
    variants: Annotated[int, typer.Option(min=0, max=50, help="Sampled variants to show.")] = 5,
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
    if as_json:
        print_json(plan_json(spec, drawn, machine))
        return
    terminal().print(render_plan(spec, drawn, machine))
