"""How a global batch is spread over ranks and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

from mir.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BatchSplit:
    """How a global batch is spread: micro x accumulation x ranks = global batch."""

    micro: int
    accumulation: int


def split_batch(global_batch: int, ranks: int, micro: int | None) -> BatchSplit:
    """Spread `global_batch` over `ranks` in micro-batches of `micro` (None: one a rank).

    Raises ConfigError if it does not divide; the message names the nearest that does.
    """
    unit = ranks * (micro or 1)
    if global_batch % unit:
        below = global_batch // unit * unit
        nearest = [str(n) for n in (below, below + unit) if n > 0]
        parts = f"{ranks} ranks" if micro is None else f"{ranks} ranks x micro_batch {micro}"
        raise ConfigError(
            f"optim.global_batch: {global_batch} cannot be divided over {parts}: "
            f"use {' or '.join(nearest)}"
        )
    size = global_batch // ranks if micro is None else micro
    return BatchSplit(micro=size, accumulation=global_batch // (size * ranks))
