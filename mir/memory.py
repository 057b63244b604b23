"""Where captured tokens are kept while a model is scored, decided from one formula.

With N tokens (vision and text) on the rank with most, W ranks, hidden size D, L layers and b
bytes a number, scoring takes at most, over what the model's own forward passes take, in bytes:

    kept(l) = l N D b                    l layers of this rank's tokens
    work    = W N (D (2 b + c) + 256)    one layer of all ranks' tokens and their norms
            + 160 D^2 + 49,152 D         moments, factors and vectors; one chunk of 1,024 tokens
            + 128 MiB                    what the libraries load and keep

2 b: the layer as sent and as received, then as received and in the order of its pairs. c, what
the distance copies: 4 for `exact` (its float32), 20 for the paper's variants (scaled, cleaned,
centred, and without massive tokens). At most `MARGIN` of what is free is used, and no more than
a limit that was asked for:

    device  kept(L) + work <= free on the device
    host    kept(L) <= free on the host, work <= free on the device
    passes  kept(l) + work <= free on the device for some l < L: ceil(L / l) runs over the data

`auto` takes the first of the three that fits. On the CPU the device is the host, so the second
is never asked. Measured against resident memory in infra/benchmarks/mir.md.
"""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import dataclass
from typing import Literal

from mir.errors import MirError
from mir.report import Variant

Memory = Literal["auto", "device", "host", "passes"]
MARGIN = 0.8
_GIB = 2**30
_COPIED: dict[Variant, int] = {"exact": 4, "paper-accurate": 20, "paper-fast": 20}
_LIBRARIES = 128 * 2**20


@dataclass(frozen=True, kw_only=True)
class Need:
    """What scoring will have to hold.

    layers: decoder layers L. tokens: N of the rank with most; all_tokens: of all ranks, W N where
    they are spread evenly. size: D. itemsize: bytes a number, b.
    """

    layers: int
    tokens: int
    all_tokens: int
    size: int
    itemsize: int
    variant: Variant = "exact"

    def kept(self, layers: int) -> int:
        """Bytes of this many layers of captured tokens."""
        return layers * self.tokens * self.size * self.itemsize

    @property
    def work(self) -> int:
        """Bytes needed to exchange and finish one layer."""
        a_number = 2 * self.itemsize + _COPIED[self.variant]
        of_tokens = self.all_tokens * (self.size * a_number + 256)
        return of_tokens + 160 * self.size**2 + 49_152 * self.size + _LIBRARIES


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


def plan_memory(need: Need, free: Free, memory: Memory | int = "auto") -> MemoryPlan:
    """Choose where captured tokens are kept.

    device, host: done as asked, without looking at what is free. passes: at least two, each with
    as many layers as fit. A number: as `auto`, within this many bytes on the device and, where it
    is another place, on the host. Raises MirError if nothing that may be chosen fits.
    """
    everything = (range(1, need.layers + 1),)
    limit = memory if isinstance(memory, int) else sys.maxsize
    usable = min(int(free.device * MARGIN), limit)
    automatic = memory not in ("device", "host", "passes")
    kept, room = need.kept(need.layers), usable - need.work
    sizes = f"{_size(kept)} of tokens, {_size(need.work)} to finish a layer"
    if memory == "device" or (automatic and kept <= room):
        return MemoryPlan(store="device", groups=everything, reason=sizes)
    on_host = min(int((free.host or 0) * MARGIN), limit)
    if memory == "host" or (automatic and room >= 0 and free.host is not None and kept <= on_host):
        return MemoryPlan(store="host", groups=everything, reason=sizes)
    at_once = min(room // max(1, need.kept(1)), need.layers)
    if at_once < 1:
        raise MirError(
            f"not enough memory: {sizes} and {_size(need.kept(1))} a layer, {_size(usable)} may be "
            "used; use fewer pairs, fewer text tokens or more ranks"
        )
    passes = max(2, math.ceil(need.layers / at_once))
    step = math.ceil(need.layers / passes)
    groups = tuple(
        range(first, min(first + step, need.layers + 1))
        for first in range(1, need.layers + 1, step)
    )
    return MemoryPlan(store="device", groups=groups, reason=f"{len(groups)} passes; {sizes}")


def _size(count: int) -> str:
    return f"{count / _GIB:.2f} GiB" if count >= _GIB / 10 else f"{count / 2**20:.0f} MiB"


def release() -> None:
    """Give freed memory back to the system where the C library would keep it (glibc).

    Without it what a forward pass has freed stays with the process, in pieces that the next
    layer's matrices do not fit into.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
