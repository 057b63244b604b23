"""Earlier studies that a sweep is seeded from, by their logs, and how far they were right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mir.errors import ConfigError, MirsweepError
from orchestrator.eventlog import LOG_NAME
from orchestrator.fold import load_view
from orchestrator.state import SweepView
from orchestrator.views.standing import counts, objective_of
from sweeps.spec import StudySpec
from sweeps.transfer import Earlier, Transfer, transfer


@dataclass(frozen=True)
class Read:
    """What an earlier study's log says. problem: why it cannot be read any more, else empty."""

    study: str
    trials: list[Earlier]
    problem: str = ""


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


def earlier_studies(spec: StudySpec) -> list[Read]:
    """Read the logs of the studies that this one was seeded from."""
    found = []
    for study in spec.warm_start:
        try:
            found.append(Read(study, earlier(study, spec.objective)))
        except MirsweepError as error:
            found.append(Read(study, [], problem=str(error)))
    return found


def transfers(view: SweepView, studies: Sequence[Read] | None = None) -> list[Transfer]:
    """How each study that this one was seeded from ranks the variants that both have finished.

    One each, also where a study cannot be read any more. studies: as `earlier_studies` has read
    them, for who compares again and again; None reads them now.
    """
    studies = earlier_studies(view.spec.study) if studies is None else studies
    if not studies:
        return []
    mine = [
        (trial.params, objective_of(view.spec, trial.scores[-1]))
        for _, trial in sorted(view.trials.items())
        if counts(trial)
    ]
    return [
        Transfer(Path(read.study).name, 0, None, None, problem=read.problem)
        if read.problem
        else transfer(Path(read.study).name, read.trials, mine)
        for read in studies
    ]
