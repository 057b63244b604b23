"""`mirsweep replay`: what another search or stopping rule would have cost and found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.run import Settings

if TYPE_CHECKING:
    from orchestrator.replay.table import Table
    from sweeps.spec import SweepSpec

Source = Annotated[
    str,
    typer.Argument(
        help="A study, a table that --save wrote, or a recipe to make curves up for.",
        metavar="STUDY",
    ),
]


def replay(
    study: Source,
    sampler: Annotated[str | None, typer.Option(help="Search by this instead.")] = None,
    stop: Annotated[str | None, typer.Option(help="Stop by this rule instead.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of each replay.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Replays of each policy.")] = 20,
    at_once: Annotated[int, typer.Option(min=1, help="Jobs at once.")] = 2,
    changes: Settings = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture here.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the table of curves here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a policy again and again over the curves of a study, in seconds, beside random search."""
    from orchestrator.budget import unit
    from orchestrator.replay.compare import Policy
    from orchestrator.replay.run import replay as once
    from orchestrator.replay.table import save_table
    from orchestrator.views.replay import replay_picture, replay_table
    from orchestrator.views.terminal import terminal
    from sweeps.objective import label

    table = read_table(study)
    if save is not None:
        save_table(table, save)
    chosen = policy_of(table, sampler, stop, trials, changes)
    plain = policy_of(table, "random", "none", trials, changes)
    policies = [
        Policy(name_of(spec), tuple(once(table, spec, seed, at_once) for seed in range(seeds)))
        for spec in (plain, chosen)
    ]
    hours = unit(table.spec.resources)
    if plot is not None:
        replay_picture(policies, hours, label(table.spec.study.objective), plot)
    if as_json:
        print_json([policy.json() for policy in policies])
        return
    terminal().print(replay_table(policies, hours))


def read_table(study: str) -> Table:
    """A table from a file, made up over a recipe, or made of a study's complete trials."""
    from orchestrator.commands.studies import load_study
    from orchestrator.replay.synthetic import synthetic
    from orchestrator.replay.table import load_table, table_of
    from sweeps.recipe import load_recipe

    path = Path(study)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return synthetic(load_recipe(path))
    if path.is_file():
        return load_table(path)
    return table_of(load_study(study)[1])


def policy_of(
    table: Table,
    sampler: str | None,
    stop: str | None,
    trials: int | None,
    changes: list[str] | None,
) -> SweepSpec:
    """The table's recipe with what the command line changes in it."""
    from orchestrator.commands.changes import changed

    asked = [*(changes or [])]
    asked += [] if sampler is None else [f"study.sampler={sampler}"]
    asked += [] if stop is None else [f"stop.rule={stop}"]
    asked += [] if trials is None else [f"budget.trials={trials}"]
    spec = changed(table.spec, asked)
    # Given by name, a rule replaces those that the recipe lists.
    return (
        spec
        if stop is None
        else spec.model_copy(update={"stop": spec.stop.model_copy(update={"rules": None})})
    )


def name_of(spec: SweepSpec) -> str:
    """'gp, hyperband'."""
    return f"{spec.study.sampler}, {' and '.join(rule.rule for rule in spec.stop.chain)}"
