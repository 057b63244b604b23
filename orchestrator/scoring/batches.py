"""This rank's forward passes, made when they are needed and kept while they are small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mir.capture import Batch
from mir.pairs import rank_batches

KEEP_BYTES = 2 * 2**30


class Batches:
    """Iterable of one rank's batches on the model's device; may be iterated again and again.

    make: turns pair numbers into a batch on the host. keep: bytes of made batches that are kept
    on the host, so that counting tokens beforehand and layer groups do not read pictures twice.
    held: bytes of them now.
    """

    def __init__(
        self,
        make: Callable[[list[int]], Batch],
        *,
        pairs: int,
        batch_size: int,
        rank: int,
        ranks: int,
        device: torch.device,
        dtype: torch.dtype,
        keep: int = KEEP_BYTES,
    ) -> None:
        self._make, self._device, self._dtype = make, device, dtype
        self._plan = list(rank_batches(pairs, batch_size, rank, ranks))
        self._kept: dict[int, Batch] = {}
        self._keep, self.held = keep, 0

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self._plan)):
            batch = self._made(number)
            moved = {name: self._moved(value) for name, value in batch.inputs.items()}
            yield replace(
                batch,
                inputs=moved,
                vision=batch.vision.to(self._device),
                text=batch.text.to(self._device),
            )

    def tokens(self, on_batch: Callable[[], None] = lambda: None) -> int:
        """Vision and text tokens of all batches, without running the model."""
        total = 0
        for number in range(len(self._plan)):
            total += self._made(number).tokens
            on_batch()
        return total

    def _made(self, number: int) -> Batch:
        if number in self._kept:
            return self._kept[number]
        pairs, counts = self._plan[number]
        batch = self._make(pairs)
        if not counts:
            none = torch.zeros_like(batch.vision)
            batch = replace(batch, vision=none, text=none)
        size = sum(v.nbytes for v in batch.inputs.values() if isinstance(v, Tensor))
        if self.held + size <= self._keep:
            self._kept[number] = batch
            self.held += size
        return batch

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self._device, self._dtype if value.is_floating_point() else None)
