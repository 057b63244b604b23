"""Verbs that steer a sweep from another terminal: `stop`, `pause`, `resume`, `extend`, `retry`,
`enqueue`. Each leaves a request in the study's folder, which the running controller takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mir.errors import ClusterError, ConfigError
from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.studies import load_study
from orchestrator.control import Request, controlled, post, taken

ANSWER_S = 10.0


def stop(
    study: Study,
    drain: Annotated[
        bool,
        typer.Option("--drain/--now", help="Let running trials end first, or save them at once."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a sweep; `mirsweep run` goes on with it later."""
    folder = _running(study)
    word = "starts nothing new and leaves when its trials have ended" if drain else "leaves"
    _ask(folder, Request(verb="drain" if drain else "stop"), word, as_json)


def pause(study: Study, as_json: AsJson = False) -> None:
    """Save all running trials and free their resources until `mirsweep resume`."""
    _ask(_running(study), Request(verb="pause"), "pauses", as_json)


def resume(study: Study, as_json: AsJson = False) -> None:
    """Go on after `mirsweep pause` or `mirsweep stop --drain`."""
    _ask(_running(study), Request(verb="resume"), "goes on", as_json)


def extend(
    study: Study,
    trials: Annotated[int, typer.Option(min=0, help="So many trials more.")] = 0,
    gpu_hours: Annotated[float, typer.Option(min=0, help="So many GPU-hours more.")] = 0.0,
    hours: Annotated[float, typer.Option(min=0, help="So many hours more.")] = 0.0,
    samples: Annotated[int, typer.Option(min=0, help="So many samples more.")] = 0,
    cost: Annotated[float, typer.Option(min=0, help="So much more money.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Give a sweep a larger budget. What a spent budget cut short goes on with `mirsweep run`."""
    folder, view = load_study(study)
    asked = {
        "trials": trials, "gpu_hours": gpu_hours, "hours": hours, "samples": samples, "cost": cost,
    }  # fmt: skip
    more = {name: amount for name, amount in asked.items() if amount}
    options = {name: f"--{name.replace('_', '-')}" for name in asked}
    if not more:
        raise ConfigError(f"extend: nothing to add. Give one of {', '.join(options.values())}")
    for name in more:
        if getattr(view.spec.budget, name) is None:
            raise ConfigError(
                f"extend: this sweep has no budget.{name}, so nothing limits it: leave out "
                f"{options[name]}"
            )
    request = Request.model_validate({"verb": "extend", **more})
    _ask(folder, request, "has the larger budget", as_json)


def retry(
    study: Study,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try the points of failed trials again, as new trials."""
    from orchestrator.steering import failed_points

    folder, view = load_study(study)
    if not failed:
        raise ConfigError("retry: say what to try again: --failed")
    if not failed_points(view):
        raise ConfigError(f"retry: {view.spec.name!r} has no failed trial that was not retried")
    _ask(folder, Request(verb="retry"), "tries them again", as_json)


def enqueue(
    study: Study,
    settings: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="A point, by its shown settings.")
    ],
    as_json: AsJson = False,
) -> None:
    """Try this point next; settings that are left out are drawn."""
    from orchestrator.commands.changes import read_value
    from sweeps.space import space_of

    folder, view = load_study(study)
    pairs = [setting.partition("=") for setting in settings]
    for name, mark, _ in pairs:
        if not mark:
            raise ConfigError(f"enqueue: {name!r} is no NAME=VALUE")
    point = {name: read_value(name, value) for name, _, value in pairs}
    space_of(view.spec).encode(point)
    _ask(folder, Request(verb="enqueue", point=point), "tries it next", as_json)


def _folder(study: str) -> Path:
    return load_study(study)[0]


def _running(study: str) -> Path:
    folder = _folder(study)
    if not controlled(folder):
        raise ClusterError(
            f"{folder}: no controller runs this study. `mirsweep run RECIPE` goes on with it"
        )
    return folder


def _ask(folder: Path, request: Request, word: str, as_json: bool) -> None:
    path = post(folder, request)
    done = controlled(folder) and taken(path, ANSWER_S)
    if as_json:
        print_json({"study": str(folder), "request": request.verb, "taken": done})
    elif done:
        typer.echo(f"{folder.name}: the controller {word}")
    elif request.passing:
        typer.echo(f"{folder.name}: no answer yet: once the controller hears of it, it {word}")
    else:
        typer.echo(f"{folder.name}: left for the next controller: it {word}")
