"""Runs a model over evaluation pairs and scores what the probe caught, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mir.memory import Free, Memory, MemoryPlan, Need, plan_memory, release
from mir.probe import LayerProbe
from mir.ranks import Layer, agree, all_or_none, score_across_ranks
from mir.report import MirReport, Protocol, Variant


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A model as scoring sees it.

    module: what is put into evaluation mode; its parameters tell device and dtype.
    forward: runs one batch's inputs through the decoder, without the language head.
    final_norm: module whose output, or first output, is the state after the final norm.
    """

    module: nn.Module
    forward: Callable[[Mapping[str, Any]], object]
    decoder_layers: Sequence[nn.Module]
    final_norm: nn.Module | None
    hidden_size: int

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self.module.parameters()).device


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One forward pass.

    inputs: what the subject's forward takes.
    vision, text: which positions [B, T] count as which.
    pairs: global pair number of each of the B sequences.
    """

    inputs: Mapping[str, Any]
    vision: Tensor
    text: Tensor
    pairs: Sequence[int]

    @property
    def tokens(self) -> int:
        """Vision and text tokens together."""
        return int(self.vision.sum() + self.text.sum())


def plan_together(
    subject: Subject,
    tokens: int,
    free: Free,
    memory: Memory | int = "auto",
    group: dist.ProcessGroup | None = None,
    variant: Variant = "exact",
) -> MemoryPlan:
    """The memory plan that all ranks follow, made for the rank with most tokens and least room.

    tokens: vision and text tokens of this rank. Raises what `plan_memory` raises, on all ranks.
    """
    everyone = agree((tokens, free), None, group)
    hosts = [free.host for _, free in everyone if free.host is not None]
    need = Need(
        layers=len(subject.decoder_layers),
        tokens=max(tokens for tokens, _ in everyone),
        all_tokens=sum(tokens for tokens, _ in everyone),
        size=subject.hidden_size,
        itemsize=next(subject.decoder_layers[0].parameters()).element_size(),
        variant=variant,
    )
    least = Free(
        device=min(free.device for _, free in everyone), host=min(hosts) if hosts else None
    )
    return plan_memory(need, least, memory)


def score_model(
    subject: Subject,
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
    The module's modes are afterwards as before. Raises what `score_across_ranks` raises.
    """
    modes = {module: module.training for module in subject.module.modules()}
    subject.module.eval()
    try:
        with all_or_none(group):
            first = _run(subject, batches, plan, plan.groups[0], on_batch)
        return score_across_ranks(
            _layers(first, subject, batches, plan, on_batch),
            first.pairs(),
            variant=variant,
            protocol=protocol,
            group=group,
        )
    finally:
        for module, mode in modes.items():
            module.training = mode


def _layers(
    probe: LayerProbe,
    subject: Subject,
    batches: Iterable[Batch],
    plan: MemoryPlan,
    on_batch: Callable[[], None],
) -> Iterator[Layer]:
    """Every layer in order; a later group is run when the one before is used up."""

    def to_device(layer: Layer) -> Layer:
        release()
        return layer[0].to(subject.device), layer[1].to(subject.device)

    for number, group in enumerate(plan.groups):
        if number > 0:
            probe.clear()
            release()
            probe = _run(subject, batches, plan, group, on_batch)
        # Not a loop over layers: its variables would keep a layer while the next is joined.
        yield from map(to_device, probe.layers())


@torch.no_grad()
def _run(
    subject: Subject,
    batches: Iterable[Batch],
    plan: MemoryPlan,
    layers: range,
    on_batch: Callable[[], None],
) -> LayerProbe:
    store = "cpu" if plan.store == "host" else None
    probe = LayerProbe(subject.decoder_layers, subject.final_norm, store=store, only=layers)
    with probe:
        for batch in batches:
            probe.positions(batch.vision, batch.text, batch.pairs)
            subject.forward(batch.inputs)
            on_batch()
    return probe
