"""The state of a sweep as a value: what `status`, the live view and the report show.

It is folded from the event log alone (`orchestrator/fold.py`), so it can be read by another
process while the sweep runs, and after the controller has died.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from jobs.events import Event, Scored, Skipped, Started
from jobs.spec import JobSpec
from sweeps.axes import Raw
from sweeps.course import Mark
from sweeps.decision import Verdict
from sweeps.objective import objective_value
from sweeps.spec import BudgetSpec, SweepSpec


class TrialState(StrEnum):
    """QUEUED, RUNNING, PAUSED and PREEMPTED are open; PRUNED, COMPLETE and FAILED are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    PREEMPTED = "preempted"
    PRUNED = "pruned"
    COMPLETE = "complete"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether a trial never leaves this state."""
        return self in (TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAILED)


@dataclass(frozen=True, kw_only=True)
class StepPoint:
    """One point of the training curve."""

    samples: int
    loss: float
    samples_per_second: float


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """One trial as people see it.

    params: the sampled settings by dotted name, mixtures as weights ('mixture/<source>').
    scores: in order of samples. steps: thinned training curve, newest last.
    feasible: whether the last score counts, None before there is one; `violation` says why not.
    counted: for each of `scores` whether it was feasible. violations: of the guard's constraints
        by the last score, above 0 where broken.
    mark: of the training loss at the newest checkpoint, where a rule looks at it.
    raw: Optuna's own parameters, with which the study can be made again.
    verdict: the newest word of the stopping rules that was not 'continue', with its reason and the
        samples it was spoken at. A trial that is PRUNE and not final is being stopped.
    objective: what Optuna is told at the end, lower is better; None for failed trials.
    restarts: restarts after failures; a preemption or a restart of the controller does not count.
    seconds: time in RUNNING over all attempts; launched: since when, None while it does not run;
        left: when its controller was last heard of, None where it has not died meanwhile.
    redone: samples seen again because an attempt ended after its newest checkpoint.
    workers: its number of ranks, None for the recipe's. waiting: for what it waits before it can
        run, '' where it does not.
    resumed: how often it went on after a rule had paused it; compared_from: samples from which
        rules without rungs compare it again.
    reason: why it is in this state ('MIR 2.91 +/- 0.04 against a median of ...').
    started, ended: seconds since the epoch.
    """

    number: int
    job: JobSpec
    params: dict[str, float | int | str]
    state: TrialState = TrialState.QUEUED
    reason: str = ""
    attempt: int = 0
    samples: int = 0
    steps: tuple[StepPoint, ...] = ()
    scores: tuple[Scored, ...] = ()
    feasible: bool | None = None
    violation: str = ""
    checkpoint: str | None = None
    skips: tuple[Skipped, ...] = ()
    started: float | None = None
    ended: float | None = None
    counted: tuple[bool, ...] = ()
    violations: dict[str, float] = field(default_factory=dict)
    raw: Raw = field(default_factory=dict)
    verdict: Verdict = Verdict.CONTINUE
    verdict_reason: str = ""
    verdict_samples: int | None = None
    objective: float | None = None
    restarts: int = 0
    seconds: float = 0.0
    launched: float | None = None
    left: float | None = None
    redone: int = 0
    workers: int | None = None
    waiting: str = ""
    resumed: int = 0
    compared_from: int = 0
    mark: Mark | None = None

    @property
    def budget(self) -> int:
        """Samples of a full run."""
        return self.job.optim.steps * self.job.optim.global_batch

    @property
    def frozen(self) -> bool:
        """Whether a rule has paused it: it goes on only if it is chosen to, see `Frozen`."""
        return self.state is TrialState.PAUSED and self.verdict is Verdict.PAUSE

    @property
    def mir(self) -> float | None:
        """The newest MIR, whether feasible or not."""
        return self.scores[-1].mir["mir"] if self.scores else None

    @property
    def skipped(self) -> dict[str, int]:
        """How many samples could not be used, by source and reason."""
        found: dict[str, int] = {}
        for skip in self.skips:
            key = f"{skip.source}: {skip.reason}"
            found[key] = found.get(key, 0) + skip.count
        return found

    def value(self, objective: str) -> float | None:
        """The newest score's value of an objective, whether feasible or not."""
        return objective_value(objective, self.scores[-1]) if self.scores else None

    def losses(self) -> dict[int, float]:
        """Validation loss by samples, of the scores that count; none before training."""
        scores = zip(self.scores, self.counted, strict=True)
        return {s.samples: s.guard.validation_loss for s, counts in scores if counts and s.samples}

    def outdone(self, violation: str) -> TrialView:
        """As it stands once others have shown that its last score does not count."""
        return replace(
            self, feasible=False, violation=violation, counted=(*self.counted[:-1], False)
        )

    def whole(self) -> TrialView:
        """The trial with everything in memory; see `orchestrator/shelf.py` for those without."""
        return self


def skips_after(skips: tuple[Skipped, ...], event: Event) -> tuple[Skipped, ...]:
    """What a trial skipped, in order, after one more event.

    A resumed job tells again what was told after the checkpoint it began with.
    """
    match event:
        case Started(resumed_samples=samples):
            return tuple(skip for skip in skips if samples and skip.samples <= samples)
        case Skipped():
            return (*skips, event)
        case _:
            return skips


@dataclass(frozen=True, kw_only=True)
class SweepView:
    """A whole sweep as people see it; trials by number. ended: None while it runs.

    note: the newest word about the sweep as a whole ('interrupted', 'budget of 2 h is spent').
    seconds: time spent by controllers up to `session`, when the present one began or was resumed.
    held: whether people have paused the sweep, which costs none of that time.
    updated: time of the newest record. code_version: commit that runs the sweep.
    micro_batches: sizes that an out-of-memory failure lowered, by shape of the job.
    requests: what people asked for and has been carried out, where twice would be too much.
    asked: the budget of the newest `mirsweep run`; `spec` has the one that counts.
    queue: points to be tried next, as raw parameters; what they leave out is chosen. seeded:
        whether the log has had those to try first; not so in a log that was begun before it had
        them, or lost them. next_trial: the first number without a trial.
    busy: seconds of all attempts that are over, as of jobs on the recipe's number of ranks.
    samples: seen by all trials, repeats included.
    """

    spec: SweepSpec
    trials: dict[int, TrialView] = field(default_factory=dict)
    opened: float = 0.0
    ended: float | None = None
    note: str = ""
    seconds: float = 0.0
    session: float = 0.0
    held: bool = False
    updated: float = 0.0
    code_version: str = ""
    micro_batches: dict[str, int] = field(default_factory=dict)
    busy: float = 0.0
    samples: int = 0
    asked: BudgetSpec | None = None
    queue: tuple[Raw, ...] = ()
    seeded: bool = False
    next_trial: int = 0
    requests: frozenset[str] = frozenset()

    @property
    def elapsed(self) -> float:
        """Seconds during which a controller was running, up to the newest record."""
        return self.elapsed_at(self.updated)

    def elapsed_at(self, now: float) -> float:
        """The same up to `now`, seconds since the epoch, while a controller runs."""
        return self.seconds if self.held else self.seconds + max(0.0, now - self.session)
