"""Runs a model over evaluation pairs and scores what the probe caught, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mir.families import Anatomy, without_head
from mir.memory import MemoryPlan
from mir.probe import LayerProbe
from mir.ranks import Layer, all_or_none, score_across_ranks
from mir.report import MirReport, Protocol, Variant


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One forward pass.

    inputs: keyword arguments of the model's forward, on its device.
    vision, text: which positions [B, T] count as which (see `token_positions`).
    pairs: global pair number of each of the B sequences.
    """

    inputs: Mapping[str, Any]
    vision: Tensor
    text: Tensor
    pairs: Sequence[int]


def score_model(
    parts: Anatomy,
    batches: Iterable[Batch],
    *,
    plan: MemoryPlan,
    protocol: Protocol,
    variant: Variant = "exact",
    group: dist.ProcessGroup | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> MirReport:
    """Run this rank's batches through the model and score all ranks' tokens together.

    batches: iterated once for each of the plan's groups; the same number on every rank.
    on_batch: called after each forward pass.
    The model is put into eval mode for the time and back. Raises what `score_across_ranks` does.
    """
    was_training = parts.body.training
    parts.body.eval()
    try:
        with all_or_none(group):
            first = _run(parts, batches, plan, plan.groups[0], on_batch)
        return score_across_ranks(
            _layers(first, parts, batches, plan, on_batch),
            first.pairs(),
            variant=variant,
            protocol=protocol,
            group=group,
        )
    finally:
        parts.body.train(was_training)


def _layers(
    probe: LayerProbe,
    parts: Anatomy,
    batches: Iterable[Batch],
    plan: MemoryPlan,
    on_batch: Callable[[], None],
) -> Iterator[Layer]:
    """Every layer in order; later groups are run when the one before is used up."""
    device = next(parts.body.parameters()).device
    for number, group in enumerate(plan.groups):
        if number > 0:
            probe.clear()
            probe = _run(parts, batches, plan, group, on_batch)
        for vision_ND, text_ND in probe.layers():
            yield vision_ND.to(device), text_ND.to(device)


@torch.no_grad()
def _run(
    parts: Anatomy,
    batches: Iterable[Batch],
    plan: MemoryPlan,
    layers: range,
    on_batch: Callable[[], None],
) -> LayerProbe:
    store = "cpu" if plan.store == "host" else None
    probe = LayerProbe(parts.decoder_layers, parts.final_norm, store=store, only=layers)
    with probe, without_head(parts):
        for batch in batches:
            probe.positions(batch.vision, batch.text, batch.pairs)
            parts.body(**batch.inputs, use_cache=False)
            on_batch()
    return probe
