"""One run from start to end: a stream of events with exactly one terminal event."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack

import torch
from torch import Tensor

from jobs.checkpoint import Checkpoint, Progress, newest, save
from jobs.data.loader import BatchLoader
from jobs.engine.deepspeed_engine import Engine, StepResult
from jobs.engine.group import gather_objects, join
from jobs.events import (
    TERMINAL,
    Checkpointed,
    Event,
    Finished,
    Scored,
    Skipped,
    Started,
    Step,
    Stopped,
)
from jobs.failures import failure_of
from jobs.load import load_start
from jobs.model.build import Built, build_model
from jobs.place import Place
from jobs.scoring import Scorer
from jobs.spec import JobSpec
from jobs.versions import versions
from mir.errors import DivergedError, NonFiniteError

CHECKPOINTS = "checkpoints"
# Steps nearer together than this are not reported, save those that a score or checkpoint follows.
STEP_EVERY_S = 0.5
_FRESH = Progress(samples=0, step=0, scored=-1, ranks=0)


def run_job(spec: JobSpec, place: Place) -> Iterator[Event]:
    """Run `spec` as one rank of its gang; resumes from the newest checkpoint in `place.folder`.

    Rank 0 yields Started, Scored before the first step (unless resumed), then Step, Scored,
    Skipped and Checkpointed as they come, and last Finished, Stopped or Failed. Other ranks yield
    the terminal event only. Nothing is raised: whatever ends the run is told as Failed, and a
    rank that failed leaves the others waiting, so the caller must then end the whole gang.
    """
    try:
        for event in _events(spec, place):
            if place.rank == 0 or isinstance(event, TERMINAL):
                yield event
    except Exception as error:  # noqa: BLE001 - every end is told, none is lost
        yield failure_of(error)


def _events(spec: JobSpec, place: Place) -> Iterator[Event]:
    with ExitStack() as stack:
        yield from _Run(spec, place, stack).events()


class _Run:
    """The parts of a run and how far it has come."""

    def __init__(self, spec: JobSpec, place: Place, stack: ExitStack) -> None:
        """Build everything; what must be freed is given to `stack`."""
        join(place)
        self._spec, self._place = spec, place
        self._began = time.monotonic()
        # Dropout differs by rank; parts that are made anew do not, they have the spec's seed.
        torch.manual_seed(spec.seed * 1_000_003 + place.rank)
        built = build_model(spec.model, spec.seed, _attention(spec, place))
        load_start(built.model, spec)
        self._scorer = Scorer(spec, built, place)
        checkpoint = _agreed_checkpoint(spec, place)
        start = checkpoint.progress if checkpoint else _FRESH
        self._samples, self._scored, self._saved = start.samples, start.scored, start.samples
        self._loader = self._open_loader(built)
        stack.callback(self._loader.close)
        self._engine = Engine(
            built.model, spec, place, checkpoint.weights() if checkpoint else None
        )
        stack.callback(self._engine.close)
        if checkpoint is not None:
            self._restore(checkpoint)
        self._meter = _Meter(self._samples)

    def events(self) -> Iterator[Event]:
        """Everything from Started to the terminal event."""
        yield self._started()
        optim, scoring, saving = self._spec.optim, self._spec.score, self._spec.checkpoint
        if _due(self._samples, self._scored, scoring.every_samples):
            yield self._score()
        while self._samples < optim.steps * optim.global_batch:
            result = self._step()
            last = self._samples == optim.steps * optim.global_batch
            score = _due(self._samples, self._scored, scoring.every_samples) or last
            save_now = _due(self._samples, self._saved, saving.every_samples) or last
            score = score and result.stop is None  # whoever asks to stop is waiting
            if score or save_now or result.stop is not None or self._meter.due:
                yield self._meter.read(self._samples, result, self._loader.wait_fraction())
            if score:
                yield self._score()
            if save_now or result.stop is not None:
                yield from self._skipped()
                yield self._save()
            if result.stop is not None:
                yield Stopped(samples=self._samples, reason=result.stop)
                return
        if self._scored != self._samples:
            yield self._score()
        yield Finished(samples=self._samples, seconds=time.monotonic() - self._began)

    def _open_loader(self, built: Built) -> BatchLoader:
        return BatchLoader(
            self._spec.data,
            seed=self._spec.seed,
            tokenizer=built.tokenizer,
            image_processor=built.image_processor,
            global_batch=self._spec.optim.global_batch,
            rank=self._place.rank,
            world_size=self._place.world_size,
            start_samples=self._samples,
            samples=self._spec.optim.steps * self._spec.optim.global_batch,
            workers=self._place.threads,
        )

    def _started(self) -> Started:
        device = self._place.device
        return Started(
            ranks=self._place.world_size,
            device=torch.cuda.get_device_name() if device == "cuda" else device,
            trainable=self._engine.trainable,
            resumed_samples=self._samples,
            versions=versions(),
        )

    def _step(self) -> StepResult:
        began = time.monotonic()
        index = self._samples // self._spec.optim.global_batch
        result = self._engine.step(next(self._loader), index)
        self._samples += self._spec.optim.global_batch
        self._meter.add(time.monotonic() - began)
        # fp16 halves its loss scale when a gradient overflows, and goes on.
        watched = {"loss": result.loss, "gradient norm": result.grad_norm}
        if self._spec.deepspeed.precision == "fp16":
            del watched["gradient norm"]
        for name, value in watched.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} became {value} at step {index + 1} ({self._samples} samples) with "
                    f"learning rate {self._spec.optim.learning_rate:g}: use a lower one"
                )
        return result

    def _score(self) -> Scored:
        began = time.monotonic()
        try:
            report, guard = self._scorer.score()
        except NonFiniteError as error:
            raise DivergedError(f"the score at {self._samples} samples: {error}") from error
        if not math.isfinite(guard.validation_loss + guard.wrong_loss):
            raise DivergedError(
                f"validation loss became {guard.validation_loss} at {self._samples} samples with "
                f"learning rate {self._spec.optim.learning_rate:g}: use a lower one"
            )
        self._scored = self._samples
        seconds = time.monotonic() - began
        return Scored(samples=self._samples, mir=report.to_json(), guard=guard, seconds=seconds)

    def _save(self) -> Checkpointed:
        """All ranks gather, rank 0 writes, and none goes on before the checkpoint is there."""
        tensors = self._engine.gather()
        for rank, states in enumerate(gather_objects(_random_states())):
            tensors |= {f"random/{rank}/{device}": state for device, state in states.items()}
        step = self._samples // self._spec.optim.global_batch
        ranks = self._place.world_size
        progress = Progress(samples=self._samples, step=step, scored=self._scored, ranks=ranks)
        folder = self._place.folder / CHECKPOINTS
        saved = None
        if self._place.rank == 0:
            saved = str(save(folder, self._spec, progress, tensors).path)
        self._saved = self._samples
        path = gather_objects(saved)[0]
        return Checkpointed(samples=self._samples, path=path)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors = checkpoint.tensors()
        self._engine.restore(tensors, checkpoint.progress.step)
        if checkpoint.progress.ranks == self._place.world_size:
            mine = f"random/{self._place.rank}/"
            _set_random_states(
                {k.removeprefix(mine): v for k, v in tensors.items() if k.startswith(mine)}
            )

    def _skipped(self) -> Iterator[Skipped]:
        """What all ranks skipped since the last checkpoint, added up."""
        counts: dict[tuple[str, str], int] = {}
        for told in gather_objects(self._loader.take_skipped()):
            for one in told:
                key = (one.source, one.reason)
                counts[key] = counts.get(key, 0) + one.count
        for (source, reason), count in sorted(counts.items()):
            yield Skipped(source=source, reason=reason, count=count)


class _Meter:
    """Speed since the last reported step; scoring and saving do not count."""

    def __init__(self, samples: int) -> None:
        self._samples, self._busy, self._read = samples, 0.0, -math.inf

    def add(self, seconds: float) -> None:
        self._busy += seconds

    @property
    def due(self) -> bool:
        return time.monotonic() - self._read >= STEP_EVERY_S

    def read(self, samples: int, result: StepResult, loader_wait: float) -> Step:
        speed = (samples - self._samples) / max(self._busy, 1e-9)
        self._samples, self._busy, self._read = samples, 0.0, time.monotonic()
        return Step(
            samples=samples,
            loss=result.loss,
            learning_rate=result.learning_rate,
            grad_norm=result.grad_norm,
            samples_per_second=speed,
            loader_wait=loader_wait,
        )


def _attention(spec: JobSpec, place: Place) -> str | None:
    """Torch's fused attention has no fast bfloat16 backward pass on CPUs: 153 against 75 ms for
    forward and backward of the embedded language model, 16 x 105 tokens, one thread."""
    slow = place.device == "cpu" and spec.deepspeed.precision == "bf16"
    return "eager" if slow else None


def _due(samples: int, done: int, every: int | None) -> bool:
    """Whether a multiple of `every` was reached after `done`."""
    return every is not None and samples // every > done // every


def _agreed_checkpoint(spec: JobSpec, place: Place) -> Checkpoint | None:
    """Rank 0 looks; the others take its word, as a save or a clean-up may be under way."""
    found = newest(place.folder / CHECKPOINTS, spec) if place.rank == 0 else None
    agreed: Checkpoint | None = gather_objects(found)[0]
    return agreed


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
