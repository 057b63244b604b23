"""Fine-tunes and evaluates trials, several at once: a small event loop over an Executor.

A trial goes through its stages one after the other, each a job of its own that resumes from its
newest checkpoint. A finished trial is kept at once, so the same command goes on after any end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.events import Evaluated, Event, Failed, FailureKind, Finished, Stopped
from jobs.spec import JobSpec
from jobs.spec.downstream import DownstreamSpec, EvaluateSpec, FinetuneSpec
from mir.errors import ClusterError, DataError
from orchestrator.correlate.choose import Candidate
from orchestrator.correlate.results import Result, Results
from orchestrator.placement import job_slots, require_fit
from orchestrator.ports import Executor, JobEvent, Launch
from orchestrator.remedy import Action, hopeless, remedy
from orchestrator.signals import Interrupt
from sweeps.spec import ResourceSpec

POLL_S = 0.25
DRAIN_S = 30.0
Stage = Literal["fine-tune", "evaluate"]


@dataclass(kw_only=True)
class _Work:
    """One trial on its way. attempt counts over both stages."""

    candidate: Candidate
    stage: Stage
    attempt: int = 0
    restarts: int = 0
    micro_batch: int | None = None
    evaluated: Evaluated | None = None


class Downstream:
    """Takes trials through fine-tuning and evaluation; one use."""

    def __init__(
        self,
        recipe: DownstreamSpec,
        resources: ResourceSpec,
        executor: Executor,
        results: Results,
        *,
        say: Callable[[str], None],
        keep: bool = False,
    ) -> None:
        """say: hears one line for everything that people want to know. keep: fine-tuned weights."""
        self._recipe, self._resources = recipe, resources
        self._executor, self._results = executor, results
        self._say, self._keep = say, keep
        self._queue: list[_Work] = []
        self._active: dict[int, _Work] = {}
        self._failures: list[FailureKind] = []
        self._done: list[Result] = []
        self._total = 0

    def run(self, todo: Sequence[Candidate], interrupt: Interrupt) -> list[Result]:
        """Results of the trials that came through; the others' failures were said.

        Leaves early, with every job saved, once `interrupt` has a name. Raises ConfigError where
        the jobs can never fit, DataError or ClusterError where going on is a waste.
        """
        require_fit(self._executor.capacity(), self._resources)
        first: Stage = "evaluate" if self._recipe.finetune is None else "fine-tune"
        self._queue = [_Work(candidate=one, stage=first) for one in todo]
        self._total = len(todo)
        while (self._queue or self._active) and interrupt.name is None:
            slots = job_slots(self._executor.capacity(), self._resources)
            # A cluster that grows by demand does so for a job that waits there.
            slots = max(slots, 1) if self._resources.autoscale else slots
            while self._queue and len(self._active) < slots:
                self._start(self._queue.pop(0))
            for said in self._executor.wait(POLL_S):
                self._hear(said)
        if interrupt.name is not None:
            self._drain(interrupt.name)
        return self._done

    def _drain(self, name: str) -> None:
        for number in list(self._active):
            self._executor.stop(number, f"interrupted by {name}")
        deadline = time.monotonic() + self._resources.grace_seconds + DRAIN_S
        while self._active and time.monotonic() < deadline:
            for said in self._executor.wait(POLL_S):
                self._hear(said)

    def _start(self, work: _Work) -> None:
        number = work.candidate.trial.number
        work.attempt += 1
        self._active[number] = work
        folder = self._results.work_folder(number)
        self._executor.start(
            Launch(
                trial=number,
                attempt=work.attempt,
                spec=self._job(work),
                resources=self._resources,
                folder=folder if work.stage == "fine-tune" else folder / "evaluate",
                shared=self._shared(work),
                last=work.restarts >= self._resources.max_restarts,
            )
        )

    def _shared(self, work: _Work) -> Path | None:
        """Where features are kept: a trained encoder's own would only fill the study's cache."""
        learnt = work.candidate.trial.job.model.learns.vision_from is not None
        return None if learnt else self._results.study

    def _job(self, work: _Work) -> FinetuneSpec | EvaluateSpec:
        """The job of the present stage."""
        start = str(work.candidate.checkpoint.resolve())
        tuning = self._recipe.finetune
        if tuning is None or work.stage == "evaluate":
            if tuning is not None:
                start = str(self._results.work_folder(work.candidate.trial.number).resolve())
            return EvaluateSpec(**self._recipe.evaluate.model_dump(), start=start)
        engine = tuning.deepspeed.model_copy(
            update={"micro_batch": work.micro_batch or tuning.deepspeed.micro_batch}
        )
        return FinetuneSpec(**{**tuning.model_dump(), "deepspeed": engine}, start=start)

    def _hear(self, said: JobEvent) -> None:
        work = self._active.get(said.trial)
        if work is None or work.attempt != said.attempt:
            return
        match said.event:
            case Evaluated() as found:
                work.evaluated = found
            case Finished() | Stopped() | Failed() as last:
                del self._active[said.trial]
                self._end(work, last)
            case _:
                return

    def _end(self, work: _Work, last: Event) -> None:
        number = work.candidate.trial.number
        if isinstance(last, Failed):
            self._failed(work, last)
        elif isinstance(last, Finished) and work.stage == "fine-tune":
            self._failures.clear()
            self._say(f"trial {number}: fine-tuned on {last.samples:,} samples")
            self._queue.insert(0, _next(work))
        elif isinstance(last, Finished):
            assert work.evaluated is not None
            self._failures.clear()
            kept = self._results.put(work.candidate, work.evaluated, keep=self._keep)
            self._done.append(kept)
            self._say(f"trial {number}: evaluated ({len(self._done)} of {self._total})")

    def _failed(self, work: _Work, failure: Failed) -> None:
        number, name = work.candidate.trial.number, f"{work.stage} of trial"
        answer = remedy(
            failure,
            job=self._sizes(work),
            workers=self._resources.workers,
            restarts=work.restarts,
            limit=self._resources.max_restarts,
        )
        self._say(f"{name} {number}: {answer.reason}")
        if answer.action is Action.HALT:
            raise ClusterError(f"{self._results.folder}: {answer.reason}")
        if answer.action is Action.RESTART:
            work.restarts += answer.counted
            work.micro_batch = answer.micro_batch or work.micro_batch
            self._queue.insert(0, work)
            return
        self._failures.append(failure.kind)
        if hopeless(self._failures) is not None:
            raise DataError(
                f"stopped after the {work.stage} of {len(self._failures)} trials in a row failed "
                f"with {failure.kind}. The last one: {failure.reason}"
            )

    def _sizes(self, work: _Work) -> JobSpec:
        """What decides the memory of the present stage, for the remedy of running out of it.

        An evaluation has no micro-batch to halve: it is shown as one that is at 1 already.
        """
        trial = work.candidate.trial.job
        tuning = self._recipe.finetune
        if tuning is None or work.stage == "evaluate":
            engine = trial.deepspeed.model_copy(update={"micro_batch": 1})
            return trial.model_copy(update={"deepspeed": engine})
        engine = tuning.deepspeed.model_copy(
            update={"micro_batch": work.micro_batch or tuning.deepspeed.micro_batch}
        )
        return trial.model_copy(update={"optim": tuning.optim, "deepspeed": engine})


def _next(work: _Work) -> _Work:
    return _Work(candidate=work.candidate, stage="evaluate", attempt=work.attempt)
