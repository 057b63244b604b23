"""The evaluation pairs as part of the protocol, and how ranks share them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator


def pairs_digest(images: Iterable[bytes], texts: Iterable[str]) -> str:
    """Sixteen hexadecimal digits for these images and texts in this order.

    images: the files' bytes, or any bytes that decide the picture (pixels, a generator's seed).
    Every part is hashed for itself, so that moving a boundary between parts changes the digest.
    """
    whole = hashlib.sha256()
    for kind, parts in (
        (b"image", images),
        (b"text", (text.encode() for text in texts)),
    ):
        for part in parts:
            whole.update(kind + hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def rank_batches(
    pair_count: int, batch_size: int, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[list[int], bool]]:
    """This rank's batches of pair numbers: (pairs, whether they count).

    Rank r takes every W-th pair. All ranks get the same number of batches, because a forward pass
    under ZeRO-3 waits for all of them; a rank that has run out gets its last batch (or pair 0)
    again, marked False: run it, capture nothing.
    """
    mine = list(range(rank, pair_count, ranks))
    most = -(-pair_count // ranks)
    for start in range(0, most, batch_size):
        batch = mine[start : start + batch_size]
        yield (batch, True) if batch else (mine[-1:] or [0], False)
