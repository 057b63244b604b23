"""One score on any number of ranks, equal to that on one.

Scale, medians and outliers are global per layer, so tokens cross ranks layer by layer: in each
round of W layers, rank r receives every rank's tokens of the r-th of them and finishes that layer.
No rank ever holds another's whole set, only one layer of everybody's at a time. Tokens are put
back into the order of their pairs, so the numbers do not depend on the sharding.

Before each collective the ranks exchange a status; if one has failed, all raise its error
together, and none waits for a rank that has left. Where a rank is killed, the others' collective
ends at once (gloo: its connections close) or at the group's timeout, with a ClusterError.

Legend: N tokens, D hidden size, W ranks.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from mir.combine import combine
from mir.errors import ClusterError, MirError, MirsweepError
from mir.layer import LayerScore, Pairs, score_layer
from mir.report import MirReport, Protocol, Variant

Layer = tuple[Tensor, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    """What a failed rank tells the others; only text, so that every error can travel."""

    kind: type[MirsweepError]
    message: str


@dataclass(frozen=True)
class _Header:
    """Shape of one rank's tokens of one layer."""

    vision: int
    text: int
    size: int
    dtype: torch.dtype

    @property
    def lengths(self) -> tuple[int, int]:
        """Numbers of vision and text tokens."""
        return self.vision, self.text


def world(group: dist.ProcessGroup | None = None) -> tuple[int, int]:
    """(rank, number of ranks); (0, 1) where torch.distributed is not in use."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def agree(mine: T, error: Exception | None, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's value, in rank order; if any rank brings an error, it is raised on all.

    The failing rank raises its own error; the others raise one of the same kind (ClusterError for
    anything that is no MirsweepError) that names the rank. ClusterError where a rank is gone.
    """
    _, ranks = world(group)
    if ranks == 1:
        if error is not None:
            raise error
        return [mine]
    everyone: list[T | _Failure] = [mine] * ranks
    try:
        with _everyone_there():
            dist.all_gather_object(
                everyone, mine if error is None else _failure(error), group=group
            )
    finally:
        if error is not None:
            raise error
    for rank, said in enumerate(everyone):
        if isinstance(said, _Failure):
            raise said.kind(f"rank {rank}: {said.message}")
    return cast("list[T]", everyone)


@contextmanager
def _everyone_there() -> Iterator[None]:
    """A collective: a rank that was killed closes its connections, which ends the others' wait."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ClusterError(f"another rank is gone: {reason}; see its own output") from error


def _failure(error: Exception) -> _Failure:
    if isinstance(error, MirsweepError):
        return _Failure(type(error), str(error))
    return _Failure(ClusterError, f"{type(error).__name__}: {error}")


@contextmanager
def all_or_none(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """Run the block on every rank; if it fails on any, its error is raised on all.

    Every rank must enter. A rank that fails while others wait inside the block, in a collective
    of its own (a ZeRO-3 forward), is noticed only by that collective's timeout.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:  # noqa: BLE001 - raised again by agree, here and on every rank
        error = caught
    agree(None, error, group)


def score_across_ranks(
    layers: Iterable[Layer],
    pairs: Pairs,
    *,
    variant: Variant = "exact",
    protocol: Protocol | None = None,
    group: dist.ProcessGroup | None = None,
) -> MirReport:
    """The MIR of all ranks' tokens, the same report on every rank.

    layers: this rank's (vision_ND, text_ND) per layer; may be lazy, and may be empty tensors
        [0, D] on a rank without pairs. All ranks give the same number of layers.
    pairs: the global pair number of each of this rank's vision and text tokens, [N] each.
    protocol: as for `score_layers`; equal on all ranks.
    group: the ranks that take part, None for all. Without torch.distributed there is one.

    Raises what `score_layers` raises. Any error of one rank is raised on all (see `agree`).
    """
    rank, ranks = world(group)
    shards = _Shards(pairs, protocol.pairs if protocol else None, group)
    mine = iter(layers)
    scores: list[LayerScore] = []
    seconds = 0.0
    error: Exception | None = None
    for first in itertools.count(1, ranks):
        received, left = shards.exchange(mine, error)
        error, start = None, time.perf_counter()
        if received is not None:
            try:
                scores.append(shards.score(received, first + rank, variant))
            except Exception as caught:  # noqa: BLE001 - every rank raises it in the next agree
                error = caught
        del received
        seconds += time.perf_counter() - start
        if left < ranks:
            break
    everyone = agree((scores, seconds), error, group)
    finished = itertools.chain.from_iterable(scores for scores, _ in everyone)
    ordered = sorted(finished, key=lambda score: score.layer)
    return combine(ordered, variant=variant, protocol=protocol, seconds=max(s for _, s in everyone))


class _Shards:
    """The ranks' shares of the tokens, and the order in which they make one set."""

    def __init__(self, pairs: Pairs, count: int | None, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self._lengths = (len(pairs[0]), len(pairs[1]))
        everyone = agree((pairs[0].cpu(), pairs[1].cpu()), None, group)
        vision_N, of_vision = _sorted(torch.cat([vision for vision, _ in everyone]))
        text_N, of_text = _sorted(torch.cat([text for _, text in everyone]))
        self._pairs = vision_N, text_N
        self._orders = of_vision, of_text
        highest = max(int(pairs_N[-1]) + 1 if len(pairs_N) else 0 for pairs_N in self._pairs)
        self._count = max(highest, count or 0)

    def exchange(
        self, layers: Iterator[Layer], error: Exception | None
    ) -> tuple[Layer | None, int]:
        """Take the next W layers; returns the whole of this rank's one of them, and how many."""
        ranks = world(self._group)[1]
        taken: list[Layer] = []
        headers: list[_Header] = []
        if error is None:
            try:
                taken = list(itertools.islice(layers, ranks))
                headers = [self._header(*layer) for layer in taken]
            except Exception as caught:  # noqa: BLE001 - every rank raises it in agree
                error = caught
        everyone = agree(headers, error, self._group)
        _require_alike(everyone)
        count = len(taken)
        return self._swap(taken, everyone) if taken else None, count

    def score(self, layer: Layer, number: int, variant: Variant) -> LayerScore:
        """Finish one layer of which this rank holds all tokens."""
        vision_ND, text_ND = layer
        return score_layer(
            vision_ND,
            text_ND,
            layer=number,
            variant=variant,
            pairs=self._pairs,
            pair_count=self._count,
        )

    def _header(self, vision_ND: Tensor, text_ND: Tensor) -> _Header:
        if (len(vision_ND), len(text_ND)) != self._lengths:
            raise MirError(
                f"a layer has {len(vision_ND)} vision and {len(text_ND)} text tokens, but "
                f"{self._lengths[0]} and {self._lengths[1]} pair numbers were given"
            )
        return _Header(len(vision_ND), len(text_ND), vision_ND.shape[1], vision_ND.dtype)

    def _swap(self, taken: list[Layer], everyone: list[list[_Header]]) -> Layer | None:
        """Send the r-th layer to rank r, receive this rank's layer of every rank, put it in order.

        Empties `taken`, so that nothing is held for longer than it takes to be sent.
        """
        here = taken[0][0].device
        if world(self._group)[1] == 1:
            return self._ordered(list(taken.pop()), here)
        received = self._received(taken, everyone)
        wire = _wire_device(self._group)
        return self._ordered(received, wire if wire.type == "cuda" else here) if received else None

    def _received(self, taken: list[Layer], everyone: list[list[_Header]]) -> list[Tensor]:
        """All ranks' vision and text tokens of this rank's layer, in the order of ranks.

        Each part arrives in its place of the whole: to join them costs more than the wire.
        """
        rank, wire = world(self._group)[0], _wire_device(self._group)
        wholes: list[Tensor] = []
        operations: list[dist.P2POp] = []
        for modality, own_ND in enumerate(taken[rank] if rank < len(taken) else ()):
            lengths = [headers[rank].lengths[modality] for headers in everyone]
            wholes.append(own_ND.new_empty(sum(lengths), own_ND.shape[1], device=wire))
            for peer, part_ND in enumerate(wholes[-1].split(lengths)):
                if peer == rank:
                    part_ND.copy_(own_ND)
                else:
                    operations += self._operation(dist.irecv, part_ND, peer, modality)
        for peer, layer in enumerate(taken):
            for modality, tokens_ND in enumerate(layer if peer != rank else ()):
                operations += self._operation(dist.isend, tokens_ND.to(wire), peer, modality)
        taken.clear()
        with _everyone_there():
            for work in dist.batch_isend_irecv(operations) if operations else ():
                work.wait()
        return wholes

    def _operation(
        self, what: Callable[..., object], tokens_ND: Tensor, peer: int, modality: int
    ) -> Iterator[dist.P2POp]:
        """One transfer, of bytes because not every backend knows every type; none of no tokens."""
        if len(tokens_ND):
            data = tokens_ND.contiguous().view(torch.uint8)
            yield dist.P2POp(what, data, group=self._group, group_peer=peer, tag=modality)

    def _ordered(self, layer: list[Tensor], device: torch.device) -> Layer:
        """A layer in the order of pairs. Empties the list: only one modality is held twice."""
        vision_ND, text_ND = (
            (part_ND if order_N is None else part_ND[order_N.to(part_ND.device)]).to(device)
            for order_N in self._orders
            for part_ND in [layer.pop(0)]
        )
        return vision_ND, text_ND


def _sorted(pairs_N: Tensor) -> tuple[Tensor, Tensor | None]:
    """Pair numbers in order, and which token comes where (None: they are in order)."""
    if bool((pairs_N[1:] >= pairs_N[:-1]).all()):
        return pairs_N, None
    order_N = pairs_N.argsort(stable=True)
    return pairs_N[order_N], order_N


def _require_alike(everyone: list[list[_Header]]) -> None:
    shapes = [[(header.size, header.dtype) for header in headers] for headers in everyone]
    for rank, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ClusterError(
                f"rank {rank} brings layers of (size, type) {shape}, rank 0 of {shapes[0]}: all "
                "ranks must run the same model and give the same layers"
            )


def _wire_device(group: dist.ProcessGroup | None) -> torch.device:
    """Where collectives take their tensors: NCCL only from the GPU, gloo from the host."""
    if "nccl" in dist.get_backend(group):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
