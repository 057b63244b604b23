"""One `mirsweep score`, from arguments to a report, on one rank or on all that a launcher made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol as Interface

import torch

from mir.capture import Batch, Subject, plan_together, score_model
from mir.errors import ConfigError, MirError
from mir.memory import Memory, MemoryPlan
from mir.ranks import all_or_none
from mir.report import MirReport, Protocol, Variant
from orchestrator.scoring.batches import KEEP_BYTES, Batches
from orchestrator.scoring.checkpoint import OwnModel, is_ours
from orchestrator.scoring.hub import HubModel
from orchestrator.scoring.inputs import EvaluationPairs
from orchestrator.scoring.limits import size_text
from orchestrator.scoring.place import choose_batch_size, choose_device, free_memory, ranks
from orchestrator.scoring.processor import Template

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line."""

    model: str
    variant: Variant
    device: str
    dtype: str
    batch_size: str
    max_text_tokens: int | None
    memory: Memory | int
    template: Template = "auto"
    trust_remote_code: bool = False


class _Model(Interface):
    """What both kinds of models offer."""

    subject: Subject
    template: str
    dtype: torch.dtype
    text_config: object

    def longest(self, pairs: EvaluationPairs, max_text_tokens: int | None) -> int: ...

    def batch(self, pairs: EvaluationPairs, numbers: list[int], limit: int | None) -> Batch: ...


def score_pairs(
    request: Request, pairs: EvaluationPairs, progress: Progress
) -> tuple[MirReport, int]:
    """The report (the same on every rank) and this rank's number.

    progress: told (what, done, all) on rank 0. Raises ConfigError where memory does not suffice,
    and whatever names a model, a picture or a text that cannot be used.
    """
    device = choose_device(request.device)
    # transformers imports DeepSpeed, which warns of every machine without a GPU unless told.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    with _enough_memory(), ranks(device) as (rank, count):
        tell: Progress = progress if rank == 0 else lambda *_: None
        with all_or_none():
            _read_pictures(pairs, range(rank, len(pairs.images), count), tell)
            tell("loading the model", 0, 1)
            model = _load(request, device)
            tell("loading the model", 1, 1)
            batches = _batches(request, model, pairs, rank, count)
            tokens = batches.tokens(_counter(tell, "preparing pairs", len(batches)))
        plan = _plan(request, model.subject, tokens, batches.held)
        report = score_model(
            model.subject,
            batches,
            plan=plan,
            variant=request.variant,
            protocol=Protocol(
                variant=request.variant,
                pairs=len(pairs.images),
                pairs_digest=pairs.digest,
                template=model.template,
                max_text_tokens=request.max_text_tokens,
            ),
            on_batch=_counter(tell, "scoring", len(batches) * len(plan.groups)),
        )
        return report, rank


def _read_pictures(pairs: EvaluationPairs, numbers: range, tell: Progress) -> None:
    """A broken picture is named now, not after minutes of loading a model."""
    for done, number in enumerate(numbers, start=1):
        pairs.picture(number)
        tell("reading pictures", done, len(numbers))


def _plan(request: Request, subject: Subject, tokens: int, held: int) -> MemoryPlan:
    """held: bytes that are taken already and were not free, but count where a limit was asked."""
    memory = request.memory
    left = memory if isinstance(memory, str) else max(0, memory - held)
    free = free_memory(subject.device)
    try:
        return plan_together(subject, tokens, free, left, variant=request.variant)
    except MirError as error:
        if isinstance(memory, str):
            raise ConfigError(f"--memory {memory}: {error}") from error
        raise ConfigError(f"--memory {size_text(memory)}: {error}, or allow more") from error


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the CPU torch has no class of its own for it.
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "allocate memory" not in str(error):
            raise
        raise ConfigError(
            "out of memory: use a smaller --batch-size or --max-text-tokens, --memory passes, or "
            "more ranks"
        ) from error


def _load(request: Request, device: torch.device) -> _Model:
    if is_ours(request.model):
        return OwnModel(request.model, device, request.dtype, request.template)
    return HubModel(
        request.model, device, request.dtype, request.template, request.trust_remote_code
    )


def _batches(
    request: Request, model: _Model, pairs: EvaluationPairs, rank: int, count: int
) -> Batches:
    limit, device = request.max_text_tokens, model.subject.device
    size = choose_batch_size(
        request.batch_size,
        model.text_config,
        model.longest(pairs, limit),
        free_memory(device),
        model.dtype.itemsize,
    )
    return Batches(
        lambda numbers: model.batch(pairs, numbers, limit),
        pairs=len(pairs.images),
        batch_size=size,
        rank=rank,
        ranks=count,
        device=device,
        dtype=model.dtype,
        keep=KEEP_BYTES if isinstance(request.memory, str) else request.memory // 4,
    )


def _counter(tell: Progress, what: str, total: int) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        tell(what, done, total)

    return count
