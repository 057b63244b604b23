"""`mirsweep rebuild`: makes Optuna's study and the MLflow runs again from the event log."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.studies import study_folder

Storage = Annotated[
    str | None,
    typer.Option(help="Optuna's storage, as the log keeps no passwords.", metavar="URL"),
]
Tracking = Annotated[
    str | None,
    typer.Option(help="MLflow's store, as the log keeps no passwords.", metavar="URL"),
]


def rebuild(
    study: Study, storage: Storage = None, tracking: Tracking = None, as_json: AsJson = False
) -> None:
    """Make Optuna's study and the MLflow runs again from the event log."""
    from orchestrator import mend
    from orchestrator.trackers.mlflow_tracker import MlflowTracker

    folder = study_folder(study)
    view = mend.rebuild(folder, MlflowTracker(), storage=storage, tracking=tracking)
    if as_json:
        print_json({"folder": str(folder), "trials": len(view.trials)})
        return
    typer.echo(f"{folder}: Optuna's study and MLflow have all {len(view.trials)} trials again")
