"""`mirsweep data check`: read everything that a recipe's jobs would read, before they do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import AsJson, print_json
from orchestrator.commands.run import Recipe, Settings, read_recipe
from orchestrator.failures import say_error

if TYPE_CHECKING:
    from orchestrator.data_choices import DataChoices
    from orchestrator.data_facts import Read


class Action(StrEnum):
    """check: read all sources and say what is in them."""

    CHECK = "check"


def data(
    action: Annotated[Action, typer.Argument(help="What to do: check.")],  # noqa: ARG001 - for now the only one
    recipe: Recipe,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Read only this many of each source, spread over it."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Where the contact sheet goes; runs/NAME-data.html if not given."),
    ] = None,
    changes: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Read a recipe's data, the base's and what its space chooses.

    Tells sizes, lengths, bad samples, duplicates, and makes a contact sheet.
    """
    from orchestrator.contact_sheet import write_sheet
    from orchestrator.data_choices import data_choices
    from orchestrator.data_facts import data_facts
    from orchestrator.views.data import render_data
    from orchestrator.views.terminal import terminal

    spec = read_recipe(recipe, None, changes)
    choices = data_choices(spec)
    read = _read(choices, samples)
    facts = data_facts(choices, read)
    page = write_sheet(sheet or Path("runs") / f"{spec.name}-data.html", spec.name, facts, read)
    if as_json:
        print_json({**facts.to_json(), "sheet": str(page)})
    else:
        terminal().print(render_data(facts))
        typer.echo(f"\ncontact sheet  {page}")
    problems = facts.problems()
    for problem in problems:
        say_error(f"{recipe}: {problem}")
    if problems:
        raise typer.Exit(2)


def _read(choices: DataChoices, limit: int | None) -> dict[str, Read]:
    from orchestrator.data_facts import read_sources

    threads = len(os.sched_getaffinity(0))
    with _progress() as on_open:
        return dict(read_sources(choices, limit=limit, threads=threads, on_open=on_open))


@contextmanager
def _progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A bar a source on stderr while it is a terminal, gone when all is read."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as p:

        def on_open(name: str, total: int) -> Callable[[int], None]:
            task = p.add_task(name, total=total)
            return lambda more: p.advance(task, more)

        yield on_open
