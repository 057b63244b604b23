"""Batches of captions of like length, which saves padding, as a pure function of the stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from jobs.data.stream import MixtureStream, mix64, permuted


class Order(Protocol):
    """Which sample stands at which position."""

    def pick(self, position: int) -> tuple[str, int]:
        """Source name and sample index at `position` (0, 1, 2, ...)."""
        ...


class LengthGroups:
    """The samples of `window` global batches in another order: each batch has like lengths.

    A stretch of window x batch positions holds the samples that it held before. They are sorted
    by length and cut into batches, and the batches stand in a random order, lest training run
    from short to long again and again. Which source has which place is settled by that; at its
    places a source is still seen without repeats until its epoch ends, the samples of an epoch
    again by length. It depends on the stream and the captions alone, not on ranks, workers, or
    where a run was resumed.
    """

    def __init__(
        self,
        stream: MixtureStream,
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
        with self._lock:  # one reader sorts a stretch, the others wait for it
            return self._stretch(number)[place]

    def _sorted(self, number: int) -> list[tuple[str, int]]:
        size = self._batch * self._window
        first = number * size
        picks = [self._stream.pick(first + turn) for turn in range(size)]
        turns = sorted(range(size), key=self._lengths(picks).__getitem__)
        places = self._places(mix64(number))
        names = [""] * size
        for place, turn in zip(places, turns, strict=True):
            names[place] = picks[turn][0]
        # By length alone the visits of one sample would come together, in whichever epochs.
        before = self._stream.epochs(first, [name for name, _ in picks])
        after = self._stream.epochs(first, names)
        waiting = {epoch: deque[tuple[str, int]]() for epoch in before}
        for turn in turns:
            waiting[before[turn]].append(picks[turn])
        for place in places:
            picks[place] = waiting[after[place]].popleft()
        return picks

    def _places(self, key: int) -> list[int]:
        """Where in a stretch its samples go, the shortest first."""
        batches = sorted(range(self._window), key=lambda n: permuted(n, self._window, key))
        return [batch * self._batch + place for batch in batches for place in range(self._batch)]
