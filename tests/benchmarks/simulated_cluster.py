"""A thousand pretended workers and a study without a database, for the controller's benchmark.

Everything takes no time but the controller itself, and nothing remembers ended trials but it.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jobs.events import Checkpointed, Event, Finished, GuardReading, Scored, Started, Step, Stopped
from jobs.spec import DataSpec, JobSpec, OptimSpec, ScoreSpec, SourceSpec
from mir.report import LayerReport, MirReport, Protocol
from orchestrator.ports import Capacity, JobEvent, Launch
from sweeps.spec import BudgetSpec, StopSpec, StudySpec, SweepSpec
from sweeps.study import Trial

SAMPLES, EVERY, LAYERS = 64, 16, 24


def sweep(trials: int, *, sampler: str = "random", rule: str = "median") -> SweepSpec:
    """A recipe over a rate and a warm-up, scored five times a trial."""
    base = JobSpec(
        data=DataSpec(
            sources={"a": SourceSpec(style="detailed", size=100)},
            validation=SourceSpec(style="detailed", split="validation", size=10),
        ),
        optim=OptimSpec(samples=SAMPLES, global_batch=8),
        score=ScoreSpec(every_samples=EVERY),
    )
    space = {
        "optim": {
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "warmup_ratio": {"low": 0.0, "high": 0.3},
        }
    }
    return SweepSpec.model_validate(
        {
            "name": "bench",
            "base": base,
            "space": space,
            "study": StudySpec.model_validate({"sampler": sampler}),
            "budget": BudgetSpec(trials=trials),
            "stop": StopSpec.model_validate({"rule": rule, "min_samples": EVERY}),
        }
    )


class Suggester:
    """Draws from the trial's number; keeps a state a trial."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._states: dict[int, str] = {}

    def first(self, begun: int, earlier: object) -> list[dict[str, float]]:
        return []

    def ask(self, number: int, given: Mapping[str, object]) -> Trial:
        self._states[number] = "RUNNING"
        chance = random.Random(number)
        raw = {"learning_rate": 10 ** chance.uniform(-4, -1), "warmup_ratio": chance.random() * 0.3}
        optim = self._spec.base.optim.model_copy(update=raw)
        job = self._spec.base.model_copy(update={"optim": optim})
        return Trial(number, raw, job, dict(raw))

    def restore(self, number: int, raw: object, shown: object) -> None:
        self._states.setdefault(number, "RUNNING")

    def states(self) -> dict[int, str]:
        return dict(self._states)

    def report(self, number: int, samples: int, value: float, error: float = 0.0) -> None:
        pass

    def paused(self, number: int, *, paused: bool) -> None:
        pass

    def tell_complete(self, number: int, objective: float, violations: object) -> None:
        self._states[number] = "COMPLETE"

    def tell_pruned(self, number: int, reason: str, violations: object = None) -> None:
        self._states[number] = "PRUNED"

    def tell_failed(self, number: int, reason: str) -> None:
        self._states[number] = "FAIL"


class Tracker:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()

    def open_sweep(self, spec: SweepSpec, folder: Path) -> None:
        pass

    def ended_trials(self) -> frozenset[int]:
        return frozenset()

    def trial_started(self, trial: int, spec: JobSpec, params: object) -> None:
        self.told["started"] += 1

    def record(self, trial: int, event: Event, at: float) -> None:
        self.told["events"] += 1

    def trial_left(self, trial: int, state: str, reason: str) -> None:
        self.told["left"] += 1

    def trial_ended(self, trial: int, state: str, reason: str) -> None:
        self.told["ended"] += 1

    def flush(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        pass


class Cluster:
    """An Executor whose jobs live on a clock of their own: the next event is the soonest one."""

    def __init__(self, workers: int) -> None:
        self._capacity = Capacity(nodes=((float(workers), 0.0),))
        self._soonest: list[tuple[float, int]] = []
        self._jobs: dict[int, tuple[Launch, Iterator[Event], float]] = {}
        self._stops: dict[int, str] = {}
        self._now = 0.0
        self.told = 0
        self.layers = _layers()

    def capacity(self) -> Capacity:
        return self._capacity

    def start(self, launch: Launch) -> None:
        pace = random.Random(-launch.trial).uniform(0.5, 2.0)
        self._jobs[launch.trial] = launch, self._events(launch), pace
        heapq.heappush(self._soonest, (self._now + pace, launch.trial))

    def stop(self, trial: int, reason: str) -> None:
        if trial in self._jobs:
            self._stops[trial] = reason

    def wait(self, timeout_s: float) -> Sequence[JobEvent]:
        if not self._soonest:
            return ()
        self._now, number = heapq.heappop(self._soonest)
        launch, events, pace = self._jobs[number]
        event = next(events)
        self.told += 1
        if isinstance(event, Finished | Stopped):
            del self._jobs[number]
            self._stops.pop(number, None)
        else:
            heapq.heappush(self._soonest, (self._now + pace, number))
        return (JobEvent(trial=number, attempt=launch.attempt, event=event),)

    def close(self) -> None:
        self._jobs.clear()

    def _events(self, launch: Launch) -> Iterator[Event]:
        rate = launch.spec.optim.learning_rate
        yield Started(ranks=1, device="cpu", trainable={"projector": 1})
        for samples in range(0, SAMPLES + 1, EVERY):
            if samples:
                yield Step(
                    samples=samples, loss=1.0, learning_rate=rate, grad_norm=1.0,
                    samples_per_second=1.0,
                )  # fmt: skip
            yield self._score(launch.trial, samples, rate)
            if launch.trial in self._stops and samples < SAMPLES:
                yield Stopped(samples=samples, reason=self._stops[launch.trial])
                return
        yield Checkpointed(samples=SAMPLES, path=f"{launch.folder}/checkpoints/{SAMPLES}")
        yield Finished(samples=SAMPLES, seconds=1.0)

    def _score(self, number: int, samples: int, rate: float) -> Scored:
        done = samples / SAMPLES
        mir = 4.0 - done * (1.0 + rate * 10) + 0.1 * random.Random(number * 100 + samples).random()
        report = MirReport(
            mir=mir, standard_error=0.02, protocol=Protocol(variant="exact"), layers=self.layers
        )
        loss = 7.0 - 4.0 * done
        guard = GuardReading(validation_loss=loss, wrong_loss=loss + done, gap=done, gap_error=0.05)
        return Scored(samples=samples, mir=report.to_json(), guard=guard, seconds=0.0)


def _layers() -> tuple[LayerReport, ...]:
    return tuple(
        LayerReport(
            layer=k, distance=1.5 * k, share=1 / LAYERS, text_scale=0.01, vision_tokens=4900,
            text_tokens=5000, vision_outliers=3, text_outliers=2,
        )
        for k in range(1, LAYERS + 1)
    )  # fmt: skip
