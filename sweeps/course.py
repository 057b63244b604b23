"""A trial's training loss as it is heard: has it exploded?"""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean

WINDOW = 8
"""How many reported steps are averaged: one batch's loss says little."""


class Course:
    """Averages over the newest steps, held against the first ones and the lowest."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=WINDOW)
        self._first: float | None = None
        self._lowest = math.inf

    def hear(self, loss: float, factor: float) -> str | None:
        """One more step, in nats a token; says why the loss has exploded, None where it has not.

        It has where it is no number, or where its average is above where it began and above
        `factor` times its lowest: near zero a multiple of the lowest alone would be noise.
        """
        if not math.isfinite(loss):
            return f"training loss became {loss}"
        self._newest.append(loss)
        if len(self._newest) < WINDOW:
            return None
        mean = fmean(self._newest)
        self._first = mean if self._first is None else self._first
        self._lowest = min(self._lowest, mean)
        if mean <= max(self._first, factor * self._lowest):
            return None
        return (
            f"training loss {mean:.2f} over {WINDOW} steps, above {self._first:.2f} at its "
            f"beginning and more than {factor:g} x its lowest {self._lowest:.2f}"
        )

    def again(self) -> None:
        """The trial goes back to an earlier checkpoint: what comes next does not follow on."""
        self._newest.clear()
