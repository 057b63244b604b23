"""`mirsweep show`: everything known about one trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mir.errors import ConfigError
from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.studies import load_study

if TYPE_CHECKING:
    from orchestrator.state import SweepView, TrialView


def show(
    study: Study,
    trial: Annotated[int, typer.Argument(help="Number of the trial.")],
    as_json: AsJson = False,
) -> None:
    """Show one trial: its settings, scores and why it ended."""
    from rich.console import Console

    from orchestrator.views.as_json import trial_details_json
    from orchestrator.views.trial import render_trial

    _, view = load_study(study)
    chosen = _trial(view, trial)
    if as_json:
        print_json(trial_details_json(chosen))
        return
    Console().print(render_trial(chosen))


def _trial(view: SweepView, number: int) -> TrialView:
    if number in view.trials:
        return view.trials[number]
    known = sorted(view.trials)
    having = f"trials {known[0]} to {known[-1]}" if known else "no trials yet"
    raise ConfigError(f"TRIAL: {number} is not in study {view.spec.name!r}, which has {having}")
