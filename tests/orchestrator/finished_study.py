"""A finished study whose trials can be fine-tuned and evaluated by pretended jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sweep_views import SAMPLES, make_view

import sweeps
from jobs.events import Evaluated, Event, Failed, Finished, Started, Step, Stopped
from jobs.place import Place
from jobs.spec.downstream import AnyJob, EvaluateSpec, FinetuneSpec
from orchestrator.correlate.choose import candidates
from orchestrator.correlate.loop import Downstream
from orchestrator.correlate.results import Results
from orchestrator.eventlog import LOG_NAME
from orchestrator.executors.inline import InlineExecutor
from orchestrator.signals import Interrupt
from orchestrator.state import SweepView, TrialState
from sweeps.recipe import load_downstream
from sweeps.spec import ResourceSpec

RECIPES = Path(sweeps.__file__).parent / "recipes"
WORLD = RECIPES / "downstream" / "world.yaml"
LOST = Failed(kind="worker-lost", reason="its process died")


def score_of(trial: int) -> float:
    """What the pretended evaluation finds: later trials are better."""
    return 0.2 + 0.03 * trial


@dataclass
class FakeJobs:
    """A runner: failures[trial] is what each fine-tune ends with, before the one that finishes."""

    failures: dict[int, list[Failed]] = field(default_factory=dict)
    ran: Counter[tuple[int, str]] = field(default_factory=Counter)
    micro: list[int | None] = field(default_factory=list)
    shared: set[Path | None] = field(default_factory=set)
    running: int = 0
    most: int = 0

    def __call__(self, spec: AnyJob, place: Place) -> Iterator[Event]:
        self.shared.add(place.shared)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield Started(ranks=1, device="cpu", trainable={})
            work = self._finetune if isinstance(spec, FinetuneSpec) else self._evaluate
            yield from work(spec, place)
        finally:
            self.running -= 1

    def _finetune(self, spec: AnyJob, place: Place) -> Iterator[Event]:
        assert isinstance(spec, FinetuneSpec)
        number = int(place.folder.name)
        self.ran[number, "fine-tune"] += 1
        self.micro.append(spec.deepspeed.micro_batch)
        assert Path(spec.start).name == f"samples-{SAMPLES:012d}"
        yield Step(samples=8, loss=1.0, learning_rate=1.0, grad_norm=1.0, samples_per_second=1.0)
        if self.failures.get(number):
            yield self.failures[number].pop(0)
            return
        reason = place.stop_requested()
        if reason is not None:
            yield Stopped(samples=8, reason=reason)
            return
        (place.folder / "checkpoints" / "samples-000000002048").mkdir(parents=True)
        yield Finished(samples=2048, seconds=1.0)

    def _evaluate(self, spec: AnyJob, place: Place) -> Iterator[Event]:
        assert isinstance(spec, EvaluateSpec)
        number = int(place.folder.parent.name)
        self.ran[number, "evaluate"] += 1
        values = {"exact-match@0": score_of(number), "answer-loss@0": 2 - score_of(number)}
        yield Evaluated(samples=2048, values=values, errors={"exact-match@0": 0.02})
        yield Finished(samples=2048, seconds=1.0)


@pytest.fixture
def view() -> SweepView:
    """A study's view; `study` is its folder."""
    return make_view(14)


@pytest.fixture
def study(tmp_path: Path, view: SweepView, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`runs/demo` with a checkpoint of the last step for every trial but the first complete one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / LOG_NAME).write_text("")
    monkeypatch.setattr("orchestrator.fold.load_view", lambda folder: view)
    for number in complete(view)[1:]:
        save(folder, number, SAMPLES)
    return folder


def complete(view: SweepView) -> list[int]:
    return [n for n, t in sorted(view.trials.items()) if t.state is TrialState.COMPLETE]


def save(folder: Path, number: int, samples: int) -> None:
    (folder / "trials" / f"{number:04d}" / "checkpoints" / f"samples-{samples:012d}").mkdir(
        parents=True
    )


def take(
    study: Path, view: SweepView, jobs: FakeJobs, interrupt: Interrupt | None = None
) -> tuple[Results, list[str]]:
    """Run everything that has no result; what was said."""
    plan = load_downstream(WORLD)
    results = Results(study, plan)
    results.open()
    said: list[str] = []
    executor = InlineExecutor(jobs, slots=2, nodes=((8.0, 0.0),))
    todo = [one for one in candidates(view, study)[0] if results.get(one) is None]
    Downstream(plan, ResourceSpec(), executor, results, say=said.append).run(
        todo, interrupt or Interrupt()
    )
    executor.close()
    return results, said
