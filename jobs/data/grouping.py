"""Batches of captions of like length, which saves padding, as a pure function of the stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from jobs.data.stream import mix64, permuted


class Order(Protocol):
    """Which sample stands at which position."""

    def pick(self, position: int) -> tuple[str, int]:
        """Source name and sample index at `position` (0, 1, 2, ...)."""
        ...


class LengthGroups:
    """The samples of `window` global batches in another order: each batch has like lengths.

    A stretch of window x batch positions holds the samples that it held before. They are sorted
    by length and cut into batches, and the batches stand in a random order, lest training run
    from short to long again and again. It depends on the stream and the captions alone, not on
    ranks, workers, or where a run was resumed. Inside a stretch in which a source's epoch ends,
    its visits of the next may come first.
    """

    def __init__(
        self,
        stream: Order,
        lengths: Callable[[Sequence[tuple[str, int]]], list[int]],
        *,
        batch: int,
        window: int,
    ) -> None:
        """lengths: of samples given by source name and index; any unit."""
        self._stream, self._lengths = stream, lengths
        self._batch, self._window = batch, window
        self._lock = threading.Lock()
        self._stretch = lru_cache(maxsize=4)(self._sorted)

    def pick(self, position: int) -> tuple[str, int]:
        """Source name and sample index at `position`."""
        number, place = divmod(position, self._batch * self._window)
        batch, within = divmod(place, self._batch)
        chosen = permuted(batch, self._window, mix64(number))
        with self._lock:  # one reader sorts a stretch, the others wait for it
            return self._stretch(number)[chosen * self._batch + within]

    def _sorted(self, number: int) -> list[tuple[str, int]]:
        size = self._batch * self._window
        picks = [self._stream.pick(number * size + place) for place in range(size)]
        lengths = self._lengths(picks)
        return [picks[place] for place in sorted(range(size), key=lengths.__getitem__)]
