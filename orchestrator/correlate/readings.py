"""What was read of each trial while it was pre-trained, at every time that all trials share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from jobs.events import Scored
from orchestrator.state import TrialView
from sweeps.correlation import Reading

MIR = "MIR"
_WINDOW = 0.1  # of the training, over which the training loss is averaged


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a reading is taken from a score, and which direction is better."""

    name: str
    lower_is_better: bool
    read: Callable[[TrialView, Scored], float | None]


def readings(trials: Sequence[TrialView]) -> list[Reading]:
    """Every reading at every share of the training at which all trials were scored, in time."""
    scores = [_by_fraction(trial) for trial in trials]
    shared = set(scores[0]).intersection(*scores) if scores else set()
    return [
        Reading(
            name=source.name,
            fraction=fraction,
            lower_is_better=source.lower_is_better,
            values=tuple(
                source.read(trial, own[fraction]) for trial, own in zip(trials, scores, strict=True)
            ),
        )
        for fraction in sorted(shared)
        for source in _sources(trials)
    ]


def _by_fraction(trial: TrialView) -> dict[float, Scored]:
    """Scores by share of the trial's own budget, so that runs of several lengths compare."""
    return {round(scored.samples / trial.budget, 3): scored for scored in trial.scores}


def _sources(trials: Sequence[TrialView]) -> list[Source]:
    names = sorted({n for trial in trials for s in trial.scores for n in s.mir["aggregates"]})
    return [
        Source(name=MIR, lower_is_better=True, read=lambda _, scored: scored.mir["mir"]),
        *(_aggregate(name) for name in names),
        *_OTHERS,
    ]


def _aggregate(name: str) -> Source:
    def read(_: TrialView, scored: Scored) -> float | None:
        value: float | None = scored.mir["aggregates"].get(name)
        return value

    return Source(name=f"{MIR} {name}", lower_is_better=True, read=read)


def _training_loss(trial: TrialView, scored: Scored) -> float | None:
    """Mean over the last tenth of the training before the score, or the last step before it."""
    since = scored.samples - _WINDOW * trial.budget
    seen = [step for step in trial.steps if step.samples <= scored.samples]
    recent = [step.loss for step in seen if step.samples > since] or [s.loss for s in seen[-1:]]
    return fmean(recent) if recent else None


def _perplexity(_: TrialView, scored: Scored) -> float | None:
    """exp of the validation loss: it ranks as the loss does, and is shown because people ask."""
    loss = scored.guard.validation_loss
    return math.exp(loss) if loss < 700 else None


_OTHERS = (
    Source(name="training loss", lower_is_better=True, read=_training_loss),
    Source(
        name="validation loss",
        lower_is_better=True,
        read=lambda _, scored: scored.guard.validation_loss,
    ),
    Source(name="perplexity", lower_is_better=True, read=_perplexity),
    Source(name="gap", lower_is_better=False, read=lambda _, scored: scored.guard.gap),
)
