"""A tracker that keeps everything in memory: the in-process twin of MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jobs.events import Event, Scored, Step
from jobs.spec import JobSpec
from orchestrator.trackers.entries import STATUS
from sweeps.spec import SweepSpec


@dataclass
class TrackedTrial:
    """What was told about one trial. starts: how often `trial_started` was called."""

    spec: JobSpec
    params: dict[str, float | int | str]
    starts: int = 0
    events: dict[tuple[float | int, str], Event] = field(default_factory=dict)
    state: str = "running"
    reason: str = ""


class MemoryTracker:
    """A Tracker for tests and for sweeps that nobody wants to remember."""

    def __init__(self) -> None:
        self.spec: SweepSpec | None = None
        self.folder: Path | None = None
        self.trials: dict[int, TrackedTrial] = {}
        self._ended: frozenset[int] = frozenset()
        self.closed = False

    def open_sweep(self, spec: SweepSpec, folder: Path) -> None:
        """Begin or continue; what was told before stays."""
        self.spec, self.folder = spec, folder
        self.closed = False
        self._ended = frozenset(n for n, trial in self.trials.items() if trial.state in STATUS)

    def ended_trials(self) -> frozenset[int]:
        """Trials that had ended when the sweep was opened."""
        return self._ended

    def trial_started(
        self, trial: int, spec: JobSpec, params: dict[str, float | int | str]
    ) -> None:
        """Begin or continue the record of a trial."""
        tracked = self.trials.setdefault(trial, TrackedTrial(spec=spec, params=dict(params)))
        tracked.spec = spec
        tracked.starts += 1
        tracked.state, tracked.reason = "running", ""

    def record(self, trial: int, event: Event, at: float) -> None:
        """Keep an event, once for each time it was said; steps and scores once for each place."""
        if isinstance(event, Step | Scored):
            self.trials[trial].events.setdefault((event.samples, event.event), event)
        else:
            self.trials[trial].events[at, event.model_dump_json()] = event

    def trial_left(self, trial: int, state: str, reason: str) -> None:
        """Keep why a trial waits."""
        self.trials[trial].state, self.trials[trial].reason = state, reason

    def trial_ended(self, trial: int, state: str, reason: str) -> None:
        """Keep how a trial ended."""
        self.trials[trial].state, self.trials[trial].reason = state, reason

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - the protocol has it
        """Nothing ever waits in memory."""
        return True

    def close(self) -> None:
        """Safe to call twice."""
        self.closed = True
