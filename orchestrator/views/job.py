"""What a job says, one line an event, for `mirsweep train`."""

from __future__ import annotations

from jobs.events import (
    Checkpointed,
    Evaluated,
    Event,
    Failed,
    Finished,
    Scored,
    Skipped,
    Spared,
    Started,
    Step,
    Stopped,
)
from orchestrator.views.text import count, duration, number, plus_minus


def job_line(event: Event) -> str:
    """The event as one line."""
    match event:
        case Started():
            parts = ", ".join(f"{part} {count(n)}" for part, n in event.trainable.items())
            since = f", resumed at {count(event.resumed_samples)}" if event.resumed_samples else ""
            return f"started on {event.ranks} x {event.device}, trains {parts}{since}"
        case Step():
            return (
                f"{count(event.samples)} samples, loss {number(event.loss)}, "
                f"learning rate {number(event.learning_rate)}, "
                f"{number(event.samples_per_second)} samples/s"
            )
        case Scored():
            mir = plus_minus(event.mir["mir"], event.mir["standard_error"])
            return (
                f"{count(event.samples)} samples, MIR {mir}, "
                f"validation loss {number(event.guard.validation_loss)}, "
                f"gap {number(event.guard.gap)} ({duration(event.seconds)} to score)"
            )
        case Spared():
            return f"{count(event.samples)} samples, not scored: {event.reason}"
        case Evaluated():
            found = (
                f"{name} {plus_minus(value, event.errors.get(name))}"
                for name, value in event.values.items()
            )
            return f"evaluated in {duration(event.seconds)}: {', '.join(found)}"
        case Checkpointed():
            return f"{count(event.samples)} samples, saved {event.path}"
        case Skipped():
            return f"skipped {count(event.count)} samples of {event.source}: {event.reason}"
        case Failed():
            return f"failed ({event.kind}): {event.reason}"
        case Stopped():
            return f"stopped after {count(event.samples)} samples: {event.reason}"
        case Finished():
            return f"finished {count(event.samples)} samples in {duration(event.seconds)}"
