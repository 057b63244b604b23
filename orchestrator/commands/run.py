"""`mirsweep run`: the main job. Sweeps a recipe, or goes on with a sweep that was interrupted."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.preflight import check_sweep
from orchestrator.failures import INTERRUPTED, same_command, say_error

if TYPE_CHECKING:
    from orchestrator.ports import Executor
    from orchestrator.state import SweepView
    from sweeps.spec import SweepSpec


PATIENCE_S = 0.25
"""How long the loop waits for Optuna before it looks after jobs again."""


class ExecutorName(StrEnum):
    """ray runs jobs as gangs of processes; inline runs one after another in this process."""

    RAY = "ray"
    INLINE = "inline"


Recipe = Annotated[Path, typer.Argument(help="Recipe of the sweep, a YAML file.")]
Folder = Annotated[Path | None, typer.Option(help="Folder of the study; runs/NAME if not given.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Run this many trials instead.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field, e.g. stop.rule=none."),
]


def run(
    recipe: Recipe,
    folder: Folder = None,
    executor: Annotated[ExecutorName, typer.Option(help="What runs the jobs.")] = ExecutorName.RAY,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster; starts a local one if not given."),
    ] = None,
    trials: Trials = None,
    changes: Settings = None,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", help="Go on without this terminal; with --address http://..., as a Ray job."
        ),
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to wait for another controller of the study to end; inf works."
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Sweep a recipe. Run it again to go on after an interruption."""
    spec = read_recipe(recipe, trials, changes)
    place = folder or Path("runs") / spec.name
    if address is not None and executor is ExecutorName.INLINE:
        raise typer.BadParameter("an address goes with --executor ray", param_hint="--address")
    check_sweep(recipe, spec, place)
    if detach:
        words = [] if trials is None else ["--trials", str(trials)]
        words += [word for change in changes or [] for word in ("--set", change)]
        words += ["--wait", str(wait)] if wait else []
        _detach(recipe, place, executor, address, words, as_json)
        return
    view = _sweep(spec, place, executor, address, wait, quiet=as_json)
    if view.ended is None:
        say_error(f"{view.note}: {same_command()}")
        raise typer.Exit(INTERRUPTED)
    _finish(view, place, as_json)


def _detach(
    recipe: Path,
    folder: Path,
    executor: ExecutorName,
    address: str | None,
    more: list[str],
    as_json: bool,
) -> None:
    """Start the same command elsewhere; paths are absolute, for it may run in another folder."""
    from orchestrator.detach import LOG, detach_here, detach_on_cluster

    words = ["run", str(recipe.resolve()), "--folder", str(folder.resolve()), *more]
    facts: dict[str, Any] = {"folder": str(folder)}
    if address is not None and address.startswith(("http://", "https://")):
        facts |= {"dashboard": address, "ray_job": detach_on_cluster(words, address, folder)}
        told = f"Ray job {facts['ray_job']} of {address} runs it"
    else:
        words += ["--executor", executor.value]
        words += [] if address is None else ["--address", address]
        facts |= {"pid": detach_here(words, folder).pid, "log": str(folder / LOG)}
        told = f"process {facts['pid']} runs it; what it says is in {facts['log']}"
    if as_json:
        print_json(facts)
        return
    typer.echo(told)
    typer.echo(f"follow it with: mirsweep attach {folder}")


def read_recipe(recipe: Path, trials: int | None, changes: list[str] | None) -> SweepSpec:
    """The validated recipe with what the command line changes in it."""
    from orchestrator.commands.changes import changed
    from sweeps.recipe import load_recipe

    budget = [] if trials is None else [f"budget.trials={trials}"]
    return changed(load_recipe(recipe), [*(changes or []), *budget])


def _sweep(
    spec: SweepSpec,
    folder: Path,
    name: ExecutorName,
    address: str | None,
    wait_s: float,
    quiet: bool,
) -> SweepView:
    from rich.console import Console

    from orchestrator.controller import Controller
    from orchestrator.lease import lease
    from orchestrator.trackers.mlflow_tracker import MlflowTracker
    from orchestrator.views.live import LiveView
    from orchestrator.views.plain import PlainView
    from sweeps.pruners import require_answers

    require_answers(spec.stop)
    console = Console()
    live = console.is_terminal and not quiet
    screen = LiveView(console) if live else PlainView(lambda line: typer.echo(line, err=quiet))
    with screen:
        if folder.is_dir():
            with lease(folder, wait_s):
                pass  # before Ray is started, which takes seconds and memory
        runner = _executor(name, address)
        # In this process nothing goes on meanwhile, and the very same sweep is to come out.
        patience_s = math.inf if name is ExecutorName.INLINE else PATIENCE_S
        return Controller(
            spec,
            folder,
            runner,
            MlflowTracker(),
            on_change=screen,
            patience_s=patience_s,
            wait_s=wait_s,
        ).run()


def _executor(name: ExecutorName, address: str | None) -> Executor:
    if name is ExecutorName.INLINE:
        from orchestrator.executors.inline import InlineExecutor

        return InlineExecutor()
    from orchestrator.executors.ray_executor import RayExecutor

    return RayExecutor(address=address)


def _finish(view: SweepView, folder: Path, as_json: bool) -> None:
    from orchestrator.report.write import write_report
    from orchestrator.views.as_json import sweep_json
    from orchestrator.views.best import write_best
    from orchestrator.views.standing import best_trial
    from orchestrator.views.summary import print_summary

    best = write_best(view, folder)
    page = write_report(view, folder / "report")
    if as_json:
        facts = sweep_json(view, view.updated, folder)
        print_json({**facts, "folder": str(folder), "report": str(page)})
    else:
        print_summary(view, folder, best, page)
    if best_trial(view) is None:
        say_error("no trial finished with a score that counts; the report says why for each")
        raise typer.Exit(1)
