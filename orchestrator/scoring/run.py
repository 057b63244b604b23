"""One `mirsweep score`, from arguments to a report, on one rank or on all that a launcher made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

import torch

from mir.capture import Batch, Subject, plan_together, score_model
from mir.memory import Memory
from mir.ranks import all_or_none
from mir.report import MirReport, Protocol, Variant
from orchestrator.scoring.batches import Batches
from orchestrator.scoring.checkpoint import CheckpointModel, is_checkpoint
from orchestrator.scoring.hub import HubModel
from orchestrator.scoring.inputs import EvaluationPairs
from orchestrator.scoring.place import choose_batch_size, choose_device, free_memory, ranks

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
    memory: Memory
    trust_remote_code: bool


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

    progress: told (what, done, all) on rank 0.
    """
    device = choose_device(request.device)
    with ranks(device) as (rank, count):
        tell: Progress = progress if rank == 0 else lambda *_: None
        tell("loading", 0, 1)
        with all_or_none():
            model = _load(request, device)
            batches = _batches(request, model, pairs, rank, count)
            tokens = batches.tokens(_counter(tell, "reading pictures and texts", len(batches)))
        free = free_memory(device)
        plan = plan_together(model.subject, tokens, free, request.memory)
        passes = len(plan.groups)
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
            on_batch=_counter(tell, "scoring", len(batches) * passes),
        )
        return report, rank


def _load(request: Request, device: torch.device) -> _Model:
    if is_checkpoint(request.model):
        return CheckpointModel(request.model, device, request.dtype)
    return HubModel(request.model, device, request.dtype, request.trust_remote_code)


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
    )


def _counter(tell: Progress, what: str, total: int) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        tell(what, done, total)

    return count
