"""Earlier studies that a sweep is seeded from, by their logs, and how far they were right."""

from __future__ import annotations

from pathlib import Path

from mir.errors import ConfigError, MirsweepError
from orchestrator.eventlog import LOG_NAME
from orchestrator.fold import load_view
from orchestrator.state import SweepView
from orchestrator.views.standing import counts, objective_of
from sweeps.transfer import Earlier, Transfer, transfer


def earlier(study: str, objective: str) -> list[Earlier]:
    """The complete and feasible trials of the study in a folder, best first.

    Raises ConfigError where there is none, or its best is not best by this objective.
    """
    folder = Path(study)
    if not (folder / LOG_NAME).is_file():
        raise ConfigError(
            f"study.warm_start: {study}: no study here ({LOG_NAME} is missing). Give the folder "
            "that `mirsweep run` printed."
        )
    view = load_view(folder)
    if view.spec.study.objective != objective:
        raise ConfigError(
            f"study.warm_start: {study}: its objective is {view.spec.study.objective}, this "
            f"study's is {objective}. Leave it out, or give points of it in study.start."
        )
    found = [
        Earlier(trial.number, dict(trial.params), objective_of(view.spec, trial.scores[-1]))
        for trial in view.trials.values()
        if counts(trial)
    ]
    return sorted(found, key=lambda trial: (trial.value, trial.number))


def transfers(view: SweepView) -> list[Transfer]:
    """How each study that this one was seeded from ranks the variants that both have finished.

    One each, also where a study cannot be read any more. Reads the logs of those studies.
    """
    spec = view.spec.study
    if not spec.warm_start:
        return []
    mine = [
        (trial.params, objective_of(view.spec, trial.scores[-1]))
        for _, trial in sorted(view.trials.items())
        if counts(trial)
    ]
    found = []
    for study in spec.warm_start:
        try:
            theirs = earlier(study, spec.objective)
        except MirsweepError as error:
            found.append(Transfer(Path(study).name, 0, None, None, problem=str(error)))
        else:
            found.append(transfer(Path(study).name, theirs, mine))
    return found
