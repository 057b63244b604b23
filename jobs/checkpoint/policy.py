"""Which checkpoints stay: a pure function of what each of them knows about itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from jobs.spec import CheckpointSpec


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come, and what it takes to go on as if it had never stopped.

    scored: samples seen when a score was last made or spared, -1 before the first.
    mir: the score at exactly `samples`, None where none was made.
    start_loss: validation loss before the first step. learnt: whether the validation loss of
        `mir` is below it; without that a low MIR means a collapsed projector, not a good one.
    semantics: those that the run began with (jobs/semantics.py), 0 before they were written down.
    trained_s, scoring_s: seconds spent on steps and on all scores so far; score_s: on the last.
    bad: bad samples of all ranks among `samples`, by source and reason; empty before they were
        written down.
    """

    samples: int
    step: int
    scored: int
    ranks: int
    mir: float | None = None
    learnt: bool = False
    start_loss: float | None = None
    trained_s: float = 0.0
    scoring_s: float = 0.0
    score_s: float = 0.0
    semantics: int = 0
    bad: Mapping[str, int] = field(default_factory=dict)


def kept(found: Collection[Progress], policy: CheckpointSpec) -> set[int]:
    """The samples of the checkpoints that the policy keeps.

    These are the newest `keep`; the `keep_best` with the lowest MIR, those that have learnt
    first; and the first at or past every multiple of `keep_every_samples`.
    """
    newest = sorted(one.samples for one in found)[-policy.keep :]
    return {*newest, *_best(found, policy.keep_best), *_milestones(found, policy)}


def _best(found: Collection[Progress], count: int) -> list[int]:
    ranked = sorted((not one.learnt, one.mir, -one.samples) for one in found if one.mir is not None)
    return [-samples for _, _, samples in ranked[:count]]


def _milestones(found: Collection[Progress], policy: CheckpointSpec) -> set[int]:
    every = policy.keep_every_samples
    if every is None:
        return set()
    first: dict[int, int] = {}
    for samples in sorted(one.samples for one in found if one.samples >= every):
        first.setdefault(samples // every, samples)
    return set(first.values())
