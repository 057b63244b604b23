"""What of a job, an event and an end is kept for people, and under which names: pure.

Metric steps are samples seen, so that trials of different batch sizes can be laid over another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.events import Checkpointed, Event, Scored, Skipped, Started, Step
from jobs.spec import JobSpec

TAG_LENGTH = 4000
SKIPPED = "skipped/"
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one trial's metric."""

    trial: int
    name: str
    value: float
    step: int
    at: float


def parameters(spec: JobSpec, shown: dict[str, float | int | str]) -> dict[str, str]:
    """What was sampled by its own name, and what else people compare trials by."""
    fixed: dict[str, object] = {
        "learning_rate": spec.optim.learning_rate,
        "global_batch": spec.optim.global_batch,
        "samples": spec.optim.samples,
        "seed": spec.seed,
        "zero_stage": spec.deepspeed.zero_stage,
        "precision": spec.deepspeed.precision,
        "projector": spec.model.projector,
        "trainable": spec.model.trainable,
        "moca": "off" if spec.model.moca is None else spec.model.moca.kind,
    }
    weights = {f"mixture/{source}": weight for source, weight in spec.data.weights.items()}
    return {name: str(value) for name, value in {**fixed, **weights, **shown}.items()}


def trial_tags(trial: int, spec: JobSpec) -> dict[str, str]:
    """Tags that a trial has from its beginning."""
    return {
        "mirsweep.trial": str(trial),
        "mirsweep.state": "running",
        "mirsweep.reason": "",
        "mirsweep.digest": spec.digest,
        "mirsweep.seed": str(spec.seed),
    }


def points(trial: int, event: Event, at: float, skips: Sequence[Skipped]) -> list[Point]:
    """The metrics of an event. skips: all of the trial up to the event, which are added up."""
    match event:
        case Step():
            fields = ("loss", "learning_rate", "grad_norm", "samples_per_second", "loader_wait")
            values = {name: getattr(event, name) for name in fields}
            if event.overflows:
                values["overflows"] = event.overflows
        case Scored():
            values = {
                "mir": event.mir["mir"],
                "mir_standard_error": event.mir["standard_error"],
                "validation_loss": event.guard.validation_loss,
                "wrong_loss": event.guard.wrong_loss,
                "gap": event.guard.gap,
                "gap_error": event.guard.gap_error,
                "scoring_seconds": event.seconds,
                "scoring_share": event.share,
            }
        case Skipped():
            alike = (s for s in skips if (s.source, s.reason) == (event.source, event.reason))
            total = sum(skip.count for skip in alike)
            values = {_plain(f"{SKIPPED}{event.source}/{event.reason}"): total}
        case _:
            return []
    step = getattr(event, "samples", 0)
    return [
        Point(trial=trial, name=name, value=float(value), step=step, at=at)
        for name, value in values.items()
        if value is not None
    ]


def event_tags(event: Event) -> dict[str, str]:
    """The tags that an event sets on its trial."""
    match event:
        case Started():
            return {
                "mirsweep.ranks": str(event.ranks),
                "mirsweep.device": event.device,
                **{f"trainable/{part}": str(count) for part, count in event.trainable.items()},
                # The parameters mixture/... are what was asked for, before caps by epochs.
                **{_plain(f"trained_mixture/{s}"): str(w) for s, w in event.weights.items()},
                **({"mirsweep.semantics": event.semantics} if event.semantics else {}),
                **{_plain(f"version/{name}"): text for name, text in event.versions.items()},
            }
        case Scored():
            report = event.report
            return {"mir.variant": report.variant, "mir.fingerprint": report.fingerprint}
        case Checkpointed():
            return {"mirsweep.checkpoint": event.path}
        case _:
            return {}


def end_tags(state: str, reason: str) -> dict[str, str]:
    """The tags of a trial's end."""
    return {"mirsweep.state": state, "mirsweep.reason": reason[:TAG_LENGTH]}


def _plain(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:200]
