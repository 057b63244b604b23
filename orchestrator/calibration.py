"""How long a sweep will take, from a few steps and two scores of its base job on this machine.

As many jobs run side by side as will in the sweep, each with its own share of the machine: a job
that has all cores and caches to itself says little of one that has not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.events import TERMINAL, Failed, Scored, Started, Step, Stopped
from jobs.spec import JobSpec
from mir.errors import ClusterError, MirsweepError
from orchestrator.budget import devices, unit
from orchestrator.ports import Executor, JobEvent, Launch, Waiting
from orchestrator.views.text import duration, number
from sweeps.space import space_of
from sweeps.spec import ResourceSpec, SweepSpec

STEPS = 8
POLL_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Seconds until a job starts, for one sample, and for one score."""

    start: float
    sample: float
    score: float

    def trial(self, job: JobSpec) -> float:
        """Seconds of a full trial."""
        samples = job.optim.steps * job.optim.global_batch
        scores = 1 + -(-samples // job.score.every_samples)
        return self.start + samples * self.sample + scores * self.score


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An upper bound: every trial runs to its end. hours: of devices; cost: None without a price.

    seconds: of the clock, None where no job fits.
    """

    trial: float
    seconds: float | None
    hours: float
    unit: str
    cost: float | None

    def lines(self) -> list[tuple[str, str]]:
        """Name and text of each line for people."""
        whole = "jobs do not fit here" if self.seconds is None else duration(self.seconds)
        found = [
            ("a full trial", duration(self.trial)),
            ("all trials", f"at most {whole}, {number(self.hours)} {self.unit}"),
        ]
        return found if self.cost is None else [*found, ("cost", f"at most {self.cost:,.2f}")]


def short(job: JobSpec) -> JobSpec:
    """The job cut to a few steps, with a score before and one after them."""
    samples = STEPS * job.optim.global_batch
    tree = job.to_json()
    tree["optim"] |= {"samples": samples}
    tree["score"] |= {"every_samples": samples}
    tree["checkpoint"] |= {"every_samples": samples}
    return JobSpec.model_validate(tree)


def calibrate(
    job: JobSpec,
    executor: Executor,
    resources: ResourceSpec,
    beside: int,
    folder: Path,
    clock: Callable[[], float] = time.monotonic,
) -> Calibration:
    """Run the shortened job `beside` times at once, in `folder`.

    Raises MirsweepError where one fails, ClusterError where one finds no room beside the others.
    The executor is left to the caller.
    """
    began, starts = clock(), []
    paces: list[list[float]] = [[] for _ in range(beside)]
    scores: list[float] = []
    for trial in range(beside):
        place = folder / f"{trial:04d}"
        executor.start(
            Launch(
                trial=trial, attempt=1, spec=short(job), resources=resources, folder=place,
                shared=folder,
            )
        )  # fmt: skip
    running = beside
    while running:
        for said in executor.wait(POLL_S):
            match said.event:
                case Waiting(reason=reason):
                    raise ClusterError(f"calibration: a job finds no room here: {reason}")
                case Started():
                    starts.append(clock() - began)
                case Step() as step if step.samples_per_second > 0:
                    paces[said.trial].append(step.samples_per_second)
                case Scored() as scored:
                    scores.append(scored.seconds)
            running -= _ended(said)
    if not scores or not all(paces):
        raise ClusterError("calibration: a job ended without a step or a score")
    # The first step also pays for what is made once.
    pace = statistics.fmean(statistics.median(one[1:] or one) for one in paces)
    return Calibration(start=max(starts), sample=1 / pace, score=statistics.fmean(scores))


def _ended(said: JobEvent) -> bool:
    if isinstance(said.event, Failed | Stopped):
        raise MirsweepError(f"calibration: the job did not end: {said.event.reason}")
    return isinstance(said.event, TERMINAL)


def estimate(spec: SweepSpec, found: Calibration, at_once: int) -> Estimate:
    """What all trials of a sweep take at most, so many at a time.

    Where the search chooses the number of ranks, the most are reckoned with, and no gain by them.
    """
    trial, trials = found.trial(spec.base), spec.budget.trials
    hours = trials * trial * devices(spec.resources, max(space_of(spec).sizes())) / 3600
    price = spec.resources.price_per_hour
    rounds = -(-trials // at_once) if at_once else 0
    return Estimate(
        trial=trial,
        seconds=rounds * trial if at_once else None,
        hours=hours,
        unit=unit(spec.resources),
        cost=None if price is None else hours * price,
    )
