"""Runs a job of any kind: the one entry that executors and the command line use."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.downstream.evaluate import run_evaluation
from jobs.downstream.start import finetune_job
from jobs.events import Event
from jobs.failures import failure_of
from jobs.place import Place
from jobs.run import run_job
from jobs.spec.downstream import AnyJob, EvaluateSpec, FinetuneSpec
from mir.errors import MirsweepError


def run_any(spec: AnyJob, place: Place) -> Iterator[Event]:
    """Pre-train, fine-tune or evaluate; events as `run_job` gives them, nothing is raised.

    A fine-tune is a training job that begins with the weights of a checkpoint: the same loop,
    engine, scoring, resuming and stopping.
    """
    if isinstance(spec, EvaluateSpec):
        yield from run_evaluation(spec, place)
        return
    if isinstance(spec, FinetuneSpec):
        try:
            spec = finetune_job(spec)
        except MirsweepError as error:
            yield failure_of(error)
            return
    yield from run_job(spec, place)
