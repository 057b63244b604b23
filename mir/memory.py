"""Where captured tokens are kept while a model is scored, decided from one formula.

With N tokens (vision and text) on this rank and N_all on all ranks, hidden size D, L layers and
b bytes a number, in bytes:

    kept(l) = l * N * D * b                          l layers of this rank's tokens
    work    = N_all * D * (4 * b + 8) + 6 * D^2 * 8  one layer while it is exchanged and finished

4 b: this layer as sent, as received, in pair order, and joined; 8: its float32 copies; 6 D^2:
covariances and factors in float64. At most `MARGIN` of what is free is used:

    device  kept(L) + work <= free on the device
    host    kept(L) <= free on the host, work <= free on the device
    passes  kept(l) + work <= free on the device for some l < L: ceil(L / l) runs over the data

`auto` takes the first of the three that fits. On the CPU the device is the host, so the second
is never asked. The memory of the model's own forward passes is not part of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mir.errors import MirError

Memory = Literal["auto", "device", "host", "passes"]
MARGIN = 0.8
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Need:
    """What scoring will have to hold.

    layers: decoder layers L. tokens: N of the rank with most; all_tokens: N_all. size: D.
    itemsize: bytes a number, b.
    """

    layers: int
    tokens: int
    all_tokens: int
    size: int
    itemsize: int

    def kept(self, layers: int) -> int:
        """Bytes of this many layers of captured tokens."""
        return layers * self.tokens * self.size * self.itemsize

    @property
    def work(self) -> int:
        """Bytes needed to exchange and finish one layer."""
        return self.all_tokens * self.size * (4 * self.itemsize + 8) + 48 * self.size**2


@dataclass(frozen=True, kw_only=True)
class Free:
    """Bytes free for this rank after the model is loaded. host: None where device is the host."""

    device: int
    host: int | None


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Where tokens are kept, and in which groups of layers the data is run through the model."""

    store: Literal["device", "host"]
    groups: tuple[range, ...]
    reason: str


def plan_memory(need: Need, free: Free, memory: Memory = "auto") -> MemoryPlan:
    """Choose where captured tokens are kept.

    device, host: done as asked, without looking at what is free. passes: at least two, each with
    as many layers as fit. Raises MirError if `auto` or `passes` find no way that fits.
    """
    everything = (range(1, need.layers + 1),)
    kept, room = need.kept(need.layers), int(free.device * MARGIN) - need.work
    sizes = f"{kept / _GIB:.2f} GiB of tokens, {need.work / _GIB:.2f} GiB to finish a layer"
    if memory == "device" or (memory == "auto" and kept <= room):
        return MemoryPlan(store="device", groups=everything, reason=sizes)
    fits_host = free.host is not None and room >= 0 and kept <= free.host * MARGIN
    if memory == "host" or (memory == "auto" and fits_host):
        return MemoryPlan(store="host", groups=everything, reason=sizes)
    at_once = min(room // max(1, need.kept(1)), need.layers)
    if at_once < 1:
        raise MirError(
            f"not enough memory: {sizes} and {need.kept(1) / _GIB:.2f} GiB a layer, "
            f"{free.device / _GIB:.2f} GiB free; use fewer pairs, fewer text tokens or more ranks"
        )
    passes = max(2, math.ceil(need.layers / at_once))
    step = math.ceil(need.layers / passes)
    groups = tuple(
        range(first, min(first + step, need.layers + 1))
        for first in range(1, need.layers + 1, step)
    )
    return MemoryPlan(store="device", groups=groups, reason=f"{len(groups)} passes; {sizes}")
