"""Which of the scheduled scores are made, so that scoring keeps to its share of a run's time."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from jobs.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured so far, in seconds, over all attempts of the run.

    trained: spent on training steps. scoring: on all scores. score: on the last of them.
    """

    trained: float = 0.0
    scoring: float = 0.0
    score: float = 0.0

    @property
    def share(self) -> float:
        """Share of the time so far that scoring took, 0 to 1."""
        return self.scoring / max(self.trained + self.scoring, 1e-9)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Whether a scheduled score is made, and why not if it is spared."""

    make: bool
    reason: str = ""


MADE = Choice(make=True)


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """The schedule of a run's scores: before the first step, then at multiples of `every`.

    every, total: samples between scheduled scores, and of the whole run.
    limit: share of the run's time for scoring. always: scheduled numbers that are never spared.
    """

    every: int
    total: int
    limit: float
    always: frozenset[int] = frozenset()

    def due(self, samples: int, decided: int) -> bool:
        """Whether a scheduled score lies past `decided` samples and at or before `samples`."""
        return samples // self.every > decided // self.every

    def choose(self, samples: int, costs: Costs) -> Choice:
        """Make or spare the scheduled score at `samples`: a pure function of what was measured.

        The run's time is projected from the steps so far, the last score's cost is set aside, and
        what is left is spread over the scheduled scores to come: all of them, every second,
        every fourth, ... These sets lie inside each other, so two trials that were stretched
        differently still share the scores of the one with fewer.
        """
        number = samples // self.every
        if self.limit >= 1 or samples == 0 or samples >= self.total or number in self.always:
            return MADE
        whole = costs.trained * self.total / samples
        left = self.limit / (1 - self.limit) * whole - costs.scoring - costs.score
        affordable = math.floor(left / max(costs.score, 1e-9))
        last = (self.total - 1) // self.every
        stride = self._stride(number, last, affordable)
        if affordable > 0 and number % stride == 0:
            return MADE
        why = f"one in {stride} is made" if affordable > 0 else "only the last is made"
        return Choice(
            make=False,
            reason=f"scoring has taken {costs.share:.1%} and a score takes {costs.score:.2g} s: "
            f"{why}, to stay within {self.limit:.1%} of the run's time",
        )

    @staticmethod
    def _stride(number: int, last: int, affordable: int) -> int:
        """The smallest power of two whose multiples from `number` to `last` can be paid for."""
        stride = 1
        while last // stride - (number - 1) // stride > affordable and stride <= last:
            stride *= 2
        return stride


def cadence_of(spec: JobSpec) -> Cadence:
    """The schedule of a job."""
    score, optim = spec.score, spec.optim
    always = score.always
    if always is None:
        always = (math.ceil(max(optim.warmup_ratio, 0.25) * optim.samples),)
    return Cadence(
        every=score.every_samples,
        total=optim.steps * optim.global_batch,
        limit=score.overhead_limit,
        always=_numbers(always, score.every_samples),
    )


def _numbers(samples: Collection[int], every: int) -> frozenset[int]:
    """The scheduled scores at or next after these samples."""
    return frozenset(-(-one // every) for one in samples)
