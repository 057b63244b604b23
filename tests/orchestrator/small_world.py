"""A sweep's surroundings in memory, for the tests of the controller: jobs that take microseconds,
a study without a database, and a fuse that kills the controller wherever it burns down."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log10
from pathlib import Path

from jobs.events import (
    Checkpointed,
    Event,
    Failed,
    Finished,
    GuardReading,
    Scored,
    Started,
    Step,
    Stopped,
)
from jobs.place import Dismissal, Place
from jobs.spec import DataSpec, JobSpec, OptimSpec, ScoreSpec, SourceSpec
from mir.report import LayerReport, MirReport, Protocol
from sweeps.spec import BudgetSpec, ResourceSpec, StopSpec, StudySpec, SweepSpec
from sweeps.study import Trial

SAMPLES, EVERY, BATCH = 64, 16, 8
RATE = "optim.learning_rate"


class Killed(BaseException):
    """Stands for `kill -9`: nothing in the controller may catch it."""


@dataclass
class Fuse:
    """Raises Killed at the n-th call; never, if n is None or once it has burnt."""

    left: int | None = None
    burnt: int = 0

    def __call__(self) -> None:
        self.burnt += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed


class Fused:
    """Burns the fuse before and after each call of any method of what it wraps."""

    def __init__(self, inner: object, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str):
        method = getattr(self._inner, name)

        def call(*args, **kwargs):
            self._fuse()
            answer = method(*args, **kwargs)
            self._fuse()
            return answer

        return call


def make_sweep(
    trials: int = 6,
    *,
    seed: int = 0,
    stop: StopSpec | None = None,
    resources: ResourceSpec | None = None,
    hours: float | None = None,
) -> SweepSpec:
    """A recipe over the learning rate."""
    base = JobSpec(
        data=DataSpec(
            sources={"detailed": SourceSpec(style="detailed", size=100)},
            validation=SourceSpec(style="detailed", split="validation", size=10),
        ),
        optim=OptimSpec(samples=SAMPLES, global_batch=BATCH),
        score=ScoreSpec(every_samples=EVERY),
    )
    return SweepSpec(
        name="small",
        base=base,
        space={"optim": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}},
        study=StudySpec(seed=seed, sampler="random"),
        budget=BudgetSpec(trials=trials, hours=hours),
        stop=stop or StopSpec(min_samples=EVERY, min_trials=2, confidence=0.0),
        resources=resources or ResourceSpec(),
    )


@dataclass
class FakeStudy:
    """A Suggester that outlives its controllers, as a database does.

    rates: learning rates to try first.
    sizes: numbers of ranks that the trials have in turn; none for the recipe's own.
    """

    spec: SweepSpec
    raws: dict[int, dict[str, float]] = field(default_factory=dict)
    told: dict[int, tuple[str, float | None]] = field(default_factory=dict)
    reports: dict[int, dict[int, float]] = field(default_factory=dict)
    tellings: Counter[int] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)
    waits: set[int] = field(default_factory=set)
    sizes: tuple[int, ...] = ()

    def _trial(self, number: int) -> Trial:
        raw = self.raws[number]
        optim = self.spec.base.optim.model_copy(update={"learning_rate": raw[RATE]})
        job = self.spec.base.model_copy(update={"optim": optim})
        workers = self.sizes[number % len(self.sizes)] if self.sizes else None
        return Trial(number, raw, job, {"learning_rate": raw[RATE]}, workers)

    def first(self, begun: int, earlier: object) -> list[dict[str, float]]:
        return [{RATE: rate} for rate in self.rates[begun:]]

    def ask(self, number: int, given: dict[str, float]) -> Trial:
        assert number not in self.told
        # As the real study: seed, number and what was told decide, not the process's history.
        best = min((v for s, v in self.told.values() if v is not None), default=0.0)
        draw = random.Random(f"{self.spec.study.seed} {number} {best}").uniform(-4, -1)
        self.raws.setdefault(number, dict(given) or {RATE: 10**draw})
        return self._trial(number)

    def restore(self, number: int, raw: dict[str, float], shown: dict[str, float]) -> None:
        assert self.raws.setdefault(number, dict(raw)) == raw
        assert [*shown.values()] == [*raw.values()]

    def states(self) -> dict[int, str]:
        return {n: self.told.get(n, ("RUNNING", None))[0] for n in self.raws}

    def report(self, number: int, samples: int, value: float, error: float = 0.0) -> None:
        if number not in self.told:
            self.reports.setdefault(number, {})[samples] = value

    def paused(self, number: int, *, paused: bool) -> None:
        assert number not in self.told
        (self.waits.add if paused else self.waits.discard)(number)

    def _tell(self, number: int, state: str, value: float | None) -> None:
        assert self.told.get(number, (state, value)) == (state, value)
        if number not in self.told:
            self.told[number] = (state, value)
            self.tellings[number] += 1

    def tell_complete(self, number: int, objective: float, violations: dict[str, float]) -> None:
        self._tell(number, "COMPLETE", objective)

    def tell_pruned(self, number: int, reason: str, violations: object = None) -> None:
        self._tell(number, "PRUNED", None)

    def tell_failed(self, number: int, reason: str) -> None:
        self._tell(number, "FAIL", None)


def score(samples: int, mir: float, *, loss: float = 2.0, gap: float = 1.0) -> Scored:
    """A score of one layer."""
    layer = LayerReport(
        layer=1, distance=10**mir, share=1.0, text_scale=1.0,
        vision_tokens=9, text_tokens=9, vision_outliers=0, text_outliers=0,
    )  # fmt: skip
    report = MirReport(
        mir=mir, standard_error=0.01, protocol=Protocol(variant="exact"), layers=(layer,)
    )
    guard = GuardReading(validation_loss=loss, wrong_loss=loss + gap, gap=gap, gap_error=0.1)
    return Scored(samples=samples, mir=report.to_json(), guard=guard, seconds=0.0)


def mir_at(spec: JobSpec, samples: int) -> float:
    """The pretended MIR: best at a learning rate of 1e-2, falling with samples."""
    return 4.0 - samples / SAMPLES * (2.0 - abs(log10(spec.optim.learning_rate) + 2.0))


@dataclass
class FakeJobs:
    """A runner whose attempts go as scripted: failures[trial] is what each attempt ends with.

    A failing attempt fails past the middle. `running` counts the jobs that stand at once,
    `trained` all samples that were trained by trial, `dismissed` who left without saving.
    blind: trials and samples whose score does not count, its gap being negative.
    """

    failures: dict[int, list[Event]] = field(default_factory=dict)
    ran: Counter[int] = field(default_factory=Counter)
    trained: Counter[int] = field(default_factory=Counter)
    dismissed: set[int] = field(default_factory=set)
    blind: set[tuple[int, int]] = field(default_factory=set)
    running: int = 0
    most: int = 0

    def __call__(self, spec: JobSpec, place: Place) -> Iterator[Event]:
        number = int(place.folder.name)
        self.ran[number] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield from self._events(number, spec, place)
        finally:
            self.running -= 1

    def _events(self, number: int, spec: JobSpec, place: Place) -> Iterator[Event]:
        checkpoint = place.folder / "checkpoint.json"
        begin = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
        script = self.failures.get(number, [])
        failure = script.pop(0) if script else None
        yield Started(ranks=1, device="cpu", trainable={"projector": 1}, resumed_samples=begin)
        if begin == 0:
            yield score(0, mir_at(spec, 0), loss=7.0)
        for samples in range(begin + BATCH, SAMPLES + 1, BATCH):
            self.trained[number] += BATCH
            yield Step(
                samples=samples, loss=1.0, learning_rate=1.0, grad_norm=1.0, samples_per_second=1.0
            )
            if samples % EVERY == 0:
                gap = -1.0 if (number, samples) in self.blind else 1.0
                yield score(samples, mir_at(spec, samples), gap=gap)
                yield save(samples, checkpoint)
            if failure is not None and samples > SAMPLES // 2:
                yield failure
                return
            reason = place.stop_requested()
            if reason is not None and samples < SAMPLES:
                if isinstance(reason, Dismissal):
                    self.dismissed.add(number)
                else:
                    yield save(samples, checkpoint)
                yield Stopped(samples=samples, reason=reason)
                return
        yield Finished(samples=SAMPLES, seconds=1.0)


def save(samples: int, checkpoint: Path) -> Checkpointed:
    """As whole as a real job's: a disk that fills up meanwhile leaves the previous one."""
    aside = checkpoint.with_suffix(".part")
    aside.write_text(json.dumps(samples))
    aside.replace(checkpoint)
    return Checkpointed(samples=samples, path=str(checkpoint))


def lost(reason: str = "its process died") -> Failed:
    """What executors say of a dead worker."""
    return Failed(kind="worker-lost", reason=reason)


def process() -> int:
    """The process that a job runs in."""
    return os.getpid()
