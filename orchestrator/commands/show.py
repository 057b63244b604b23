"""`mirsweep show`: everything known about one trial."""

from __future__ import annotations

from orchestrator.commands.options import AsJson, Study, TrialNumber, print_json
from orchestrator.commands.studies import find_trial, load_study


def show(study: Study, trial: TrialNumber, as_json: AsJson = False) -> None:
    """Show one trial: its settings, scores and why it ended."""
    from orchestrator.views.as_json import trial_details_json
    from orchestrator.views.terminal import terminal
    from orchestrator.views.trial import render_trial

    folder, view = load_study(study)
    chosen = find_trial(view, trial)
    if as_json:
        print_json(trial_details_json(chosen, folder))
        return
    terminal().print(render_trial(chosen, folder))
