"""What a job says while it runs. Plain values: they cross Ray, the event log and MLflow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from jobs.spec import Frozen
from mir.report import MirReport


class Started(Frozen):
    """The engine stands and the first batch is about to be read.

    trainable: number of trainable parameters by part ('projector', 'moca', ...); empty where the
    job trains nothing.
    resumed_samples: samples already seen by the checkpoint that was resumed, 0 for a fresh start.
    versions: package versions and the commit, for the tracker.
    weights: share of each source in what is trained on, within the caps by epochs; empty in logs
    of older versions and where nothing is trained. semantics: of the training's numbers, in words
    (jobs/semantics.py); as empty.
    """

    event: Literal["started"] = "started"
    ranks: int
    device: str
    trainable: dict[str, int]
    resumed_samples: int = 0
    versions: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    semantics: str = ""


class Step(Frozen):
    """One optimizer step, averaged over ranks.

    loader_wait: share of the time spent on steps, scores and saves apart, that went into waiting
    for data since the last such event.
    overflows: steps of the run so far that changed no weight because fp16 gradients overflowed.
    """

    event: Literal["step"] = "step"
    samples: int
    loss: float
    learning_rate: float
    grad_norm: float
    samples_per_second: float
    loader_wait: float = 0.0
    overflows: int = 0


class GuardReading(Frozen):
    """Whether the projector says anything about the picture (design section 3).

    validation_loss: mean token loss with the right picture; wrong_loss: with another picture.
    gap: wrong_loss - validation_loss; gap_error: its standard error over validation samples.
    """

    validation_loss: float
    wrong_loss: float
    gap: float
    gap_error: float


class Scored(Frozen):
    """A score at `samples` seen; `seconds` is all the time that scoring took from training.

    mir: a MirReport as `to_json` gives it (see the property `report`).
    share: share of the run's time so far that all its scores took, this one included.
    """

    event: Literal["scored"] = "scored"
    samples: int
    mir: dict[str, Any]
    guard: GuardReading
    seconds: float
    share: float = 0.0

    @property
    def report(self) -> MirReport:
        """The score as a MirReport."""
        return MirReport.from_json(self.mir)


class Spared(Frozen):
    """A scheduled score was left out because it would have cost too much of the run's time.

    share: share of the run's time so far that its scores took.
    """

    event: Literal["spared"] = "spared"
    samples: int
    share: float
    reason: str


class Evaluated(Frozen):
    """What an evaluation found: `values` by measure, with the standard error where there is one.

    counts: over how many questions or captions each measure is a mean. Shares lie in 0 to 1.
    """

    event: Literal["evaluated"] = "evaluated"
    samples: int
    values: dict[str, float]
    errors: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0


class Checkpointed(Frozen):
    """A checkpoint can be resumed from `path`."""

    event: Literal["checkpointed"] = "checkpointed"
    samples: int
    path: str


class Skipped(Frozen):
    """Bad samples since the last such event, by source and reason, told at `samples` seen."""

    event: Literal["skipped"] = "skipped"
    source: str
    reason: str
    count: int
    samples: int = 0


FailureKind = Literal[
    "worker-lost", "preempted", "out-of-memory", "diverged", "bad-configuration", "bad-data",
    "disk-full", "no-resources", "error",
]  # fmt: skip


class Failed(Frozen):
    """The job ended without finishing. `reason` is one line, `detail` a traceback if any."""

    event: Literal["failed"] = "failed"
    kind: FailureKind
    reason: str
    detail: str = ""


class Stopped(Frozen):
    """The job left at a step boundary because it was asked to, after saving."""

    event: Literal["stopped"] = "stopped"
    samples: int
    reason: str


class Finished(Frozen):
    """All samples were seen and the last score and checkpoint are out."""

    event: Literal["finished"] = "finished"
    samples: int
    seconds: float


Event = Annotated[
    Started
    | Step
    | Scored
    | Spared
    | Evaluated
    | Checkpointed
    | Skipped
    | Failed
    | Stopped
    | Finished,
    Field(discriminator="event"),
]
TERMINAL = (Failed, Stopped, Finished)
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def event_from_json(data: dict[str, Any]) -> Event:
    """Restore an event that `model_dump(mode='json')` wrote."""
    return _ADAPTER.validate_python(data)
