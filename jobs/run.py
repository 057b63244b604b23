"""One run from start to end: a stream of events with exactly one terminal event."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import torch

from jobs.cadence import Costs, cadence_of
from jobs.checkpoint import (
    Checkpoint,
    FrozenPart,
    Progress,
    frozen_parts,
    newest,
    open_checkpoint,
    require_same_frozen,
)
from jobs.checkpoint.writer import Writer
from jobs.data.errors import too_many_bad, too_many_error
from jobs.data.loader import BatchLoader
from jobs.engine.deepspeed_engine import Engine, StepResult
from jobs.engine.group import gather_objects, join
from jobs.engine.random_state import random_states, set_random_states
from jobs.events import (
    TERMINAL,
    Checkpointed,
    Event,
    Finished,
    Scored,
    Skipped,
    Spared,
    Started,
    Stopped,
)
from jobs.failures import failure_of
from jobs.features.cache import open_features
from jobs.load import build_job
from jobs.meter import Meter
from jobs.model.build import Built
from jobs.model.length import require_room
from jobs.place import Dismissal, Place
from jobs.scoring import Scorer
from jobs.semantics import SEMANTICS, named, warning_of
from jobs.spec import JobSpec
from jobs.versions import versions
from mir.errors import ClusterError, DivergedError, MirsweepError, NonFiniteError

CHECKPOINTS = "checkpoints"
_FRESH = Progress(samples=0, step=0, scored=-1, ranks=0, semantics=SEMANTICS)
_log = logging.getLogger(__name__)


def run_job(spec: JobSpec, place: Place) -> Iterator[Event]:
    """Run `spec` as one rank of its gang; resumes from the newest checkpoint in `place.folder`.

    Rank 0 yields Started, Scored before the first step (unless resumed), then Step, Scored,
    Skipped and Checkpointed as they come, and last Finished, Stopped or Failed. Skipped comes
    before each save, before a failure for too many of them and, of its own samples alone, before
    any other failure for good. Other ranks yield the terminal event only. Nothing is raised:
    whatever ends the run is told as Failed, and a rank that failed leaves the others waiting, so
    the caller must then end the whole gang.
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
        # Dropout differs by rank; parts that are made anew do not.
        torch.manual_seed(spec.seed * 1_000_003 + place.rank)
        # DeepSpeed makes its masters of what it has cast, so nothing is lost that it would see.
        as_stored = spec.deepspeed.precision != "fp32"
        built = build_job(spec, _attention(spec, place), as_stored=as_stored)
        caption, prefix = spec.data.max_caption_tokens, len(built.model.prefix_ids)
        require_room(built.model, "data.max_caption_tokens", caption, prefix)
        frozen = frozen_parts(built.model, spec) if place.rank == 0 else {}
        if spec.start is not None and place.rank == 0:
            _warn_of(f"start: {spec.start}", open_checkpoint(Path(spec.start))[0])
        self._features = open_features(spec, built, place)
        if self._features is not None:
            stack.callback(self._features.close)
        self._scorer = Scorer(spec, built, place, self._features)
        self._cadence = cadence_of(spec)
        checkpoint = _agreed_checkpoint(spec, place, frozen)
        start = checkpoint.progress if checkpoint else _FRESH
        self._samples, self._scored, self._saved = start.samples, start.scored, start.samples
        self._start_loss, self._semantics = start.start_loss, start.semantics
        self._bad = Counter(start.bad)
        self._last_score: Scored | None = None
        self._scoring_s, self._score_s = start.scoring_s, start.score_s
        self._loader = self._open_loader(built)
        stack.callback(self._loader.close)
        self._engine = Engine(
            built.model, spec, place, checkpoint.weights() if checkpoint else None
        )
        stack.callback(self._engine.close)
        if checkpoint is not None:
            self._restore(checkpoint)
        self._meter = Meter(self._samples, start.trained_s)
        self._writer = Writer(place.folder / CHECKPOINTS, spec, frozen)
        stack.callback(self._writer.close)

    def events(self) -> Iterator[Event]:
        """Everything from Started to the terminal event."""
        try:
            yield from self._story()
        except MirsweepError as error:
            # A job that ends for good. No other rank is asked: they may wait for the next step.
            if not isinstance(error, ClusterError):  # restarted, it reads and tells the same again
                yield from self._added_up([self._loader.take_skipped()])
            raise

    def _story(self) -> Iterator[Event]:
        yield self._started()
        if self._samples == 0:  # all ranks read the same
            yield from self._scorer.skipped
        saving, total = self._spec.checkpoint, self._cadence.total
        if self._cadence.due(self._samples, self._scored):
            yield self._score_or_spare()
        while self._samples < total:
            result = self._step()
            yield from _told(self._writer.finished())
            yield from self._require_few_bad(result.bad)
            last = self._samples == total
            score = self._cadence.due(self._samples, self._scored) or last
            save_now = _due(self._samples, self._saved, saving.every_samples) or last
            score = score and result.stop is None  # whoever asks to stop is waiting
            if score or save_now or result.stop is not None or self._meter.due:
                yield self._meter.read(self._samples, result, self._loader.take_wait())
            if score:
                yield self._score_or_spare()
            if save_now or result.stop is not None:
                yield from self._skipped()
            if save_now or not isinstance(result.stop, Dismissal | None):
                yield from self._save()
            if result.stop is not None:
                yield from _told(self._writer.wait())
                yield Stopped(samples=self._samples, reason=result.stop)
                return
        if self._scored != self._samples:
            yield self._score_or_spare()
        yield from _told(self._writer.wait())
        yield Finished(samples=self._samples, seconds=time.monotonic() - self._began)

    def _open_loader(self, built: Built) -> BatchLoader:
        return BatchLoader(
            self._spec.data,
            seed=self._spec.seed,
            tokenizer=built.tokenizer,
            image_processor=built.image_processor,
            features=self._features,
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
            weights=self._loader.weights(),
            semantics=named(self._semantics),
        )

    def _step(self) -> StepResult:
        began = time.monotonic()
        index = self._samples // self._spec.optim.global_batch
        batch = next(self._loader)
        result = self._engine.step(batch, index, self._loader.bad)
        self._samples += self._spec.optim.global_batch
        self._meter.add(time.monotonic() - began)
        for name, value in (("loss", result.loss), ("gradient norm", result.grad_norm)):
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} became {value} at step {index + 1} ({self._samples} samples) with "
                    f"learning rate {self._spec.optim.learning_rate:g}: use a lower one"
                )
        return result

    def _score_or_spare(self) -> Scored | Spared:
        """Rank 0's clock decides for all: a rank that scored alone would wait for ever."""
        costs = Costs(trained=self._meter.trained_s, scoring=self._scoring_s, score=self._score_s)
        choice = gather_objects(self._cadence.choose(self._samples, costs))[0]
        self._scored = self._samples
        if choice.make:
            return self._score()
        return Spared(samples=self._samples, share=costs.share, reason=choice.reason)

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
        if self._start_loss is None:
            self._start_loss = guard.validation_loss
        self._score_s = time.monotonic() - began
        self._scoring_s += self._score_s
        costs = Costs(trained=self._meter.trained_s, scoring=self._scoring_s)
        self._last_score = Scored(
            samples=self._samples,
            mir=report.to_json(),
            guard=guard,
            seconds=self._score_s,
            share=costs.share,
        )
        return self._last_score

    def _save(self) -> Iterator[Checkpointed]:
        """All ranks gather, rank 0 copies to memory and writes while the training goes on."""
        yield from _told(self._writer.wait())  # two copies at once might not fit into memory
        tensors = self._engine.gather()
        for rank, states in enumerate(gather_objects(random_states())):
            tensors |= {f"random/{rank}/{device}": state for device, state in states.items()}
        self._saved = self._samples
        if self._place.rank == 0:
            self._writer.write(self._progress(), tensors)

    def _progress(self) -> Progress:
        here, begun = self._last_score, self._start_loss
        if here is not None and here.samples != self._samples:
            here = None
        return Progress(
            samples=self._samples,
            step=self._samples // self._spec.optim.global_batch,
            scored=self._scored,
            ranks=self._place.world_size,
            mir=here.mir["mir"] if here else None,
            learnt=bool(here and begun is not None and here.guard.validation_loss < begun),
            start_loss=self._start_loss,
            trained_s=self._meter.trained_s,
            scoring_s=self._scoring_s,
            score_s=self._score_s,
            semantics=self._semantics,
            bad=dict(self._bad),
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors = checkpoint.tensors()
        self._engine.restore(tensors, checkpoint.progress.step)
        if checkpoint.progress.ranks == self._place.world_size:
            mine = f"random/{self._place.rank}/"
            set_random_states(
                {k.removeprefix(mine): v for k, v in tensors.items() if k.startswith(mine)}
            )

    def _require_few_bad(self, since: int) -> Iterator[Skipped]:
        """Raise DataError, on all ranks alike, where too many samples of the run are bad.

        since: how many all ranks skipped since the last checkpoint.
        """
        limit = self._spec.data.max_bad_fraction
        if too_many_bad(self._bad.total() + since, self._samples, limit):
            *_, last = ["", *filter(None, gather_objects(self._loader.last_bad))]
            yield from self._skipped()
            raise too_many_error(self._bad, self._samples, limit, last)

    def _skipped(self) -> Iterator[Skipped]:
        """What all ranks skipped since the last checkpoint."""
        skipped = list(self._added_up(gather_objects(self._loader.take_skipped())))
        self._bad.update({f"{one.source}: {one.reason}": one.count for one in skipped})
        yield from skipped

    def _added_up(self, ranks: list[list[Skipped]]) -> Iterator[Skipped]:
        counts: dict[tuple[str, str], int] = {}
        for one in chain.from_iterable(ranks):
            key = (one.source, one.reason)
            counts[key] = counts.get(key, 0) + one.count
        for (source, reason), count in sorted(counts.items()):
            yield Skipped(source=source, reason=reason, count=count, samples=self._samples)


def _attention(spec: JobSpec, place: Place) -> str | None:
    """Torch's fused attention has no fast bfloat16 backward pass on CPUs: 153 against 75 ms for
    forward and backward of the embedded language model, 16 x 105 tokens, one thread."""
    slow = place.device == "cpu" and spec.deepspeed.precision == "bf16"
    return "eager" if slow else None


def _due(samples: int, done: int, every: int | None) -> bool:
    """Whether a multiple of `every` was reached after `done`."""
    return every is not None and samples // every > done // every


def _told(checkpoint: Checkpoint | None) -> Iterator[Checkpointed]:
    """The event of a checkpoint that has become safe, if there is one."""
    if checkpoint is not None:
        yield Checkpointed(samples=checkpoint.progress.samples, path=str(checkpoint.path))


def _warn_of(where: str, checkpoint: Checkpoint) -> None:
    """Say in the log if a checkpoint's numbers were made as this code would not make them."""
    warning = warning_of(where, checkpoint.progress.semantics)
    if warning is not None:
        _log.warning(warning)


def _agreed_checkpoint(
    spec: JobSpec, place: Place, frozen: dict[str, FrozenPart]
) -> Checkpoint | None:
    """Rank 0 looks; the others take its word, as a save or a clean-up may be under way."""
    found = newest(place.folder / CHECKPOINTS, spec) if place.rank == 0 else None
    if found is not None:
        require_same_frozen(str(found.path), found.frozen, frozen)
        _warn_of(str(found.path), found)
    agreed: Checkpoint | None = gather_objects(found)[0]
    return agreed
