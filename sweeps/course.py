"""A trial's training loss as it is heard: has it exploded?"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

WINDOW = 8
"""How many reported steps are averaged: one batch's loss says little."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A course as it was at a checkpoint, so that a resumed trial has the same one.

    samples: of the checkpoint. first, lowest: averages in nats a token, None and inf before there
    are any. newest: losses of the newest steps, oldest first.
    """

    samples: int
    first: float | None
    lowest: float
    newest: tuple[float, ...]


class Course:
    """Averages over the newest steps, held against the first ones and the lowest."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=WINDOW)
        self._first: float | None = None
        self._lowest = math.inf

    @classmethod
    def resumed(cls, samples: int, mark: Mark | None, losses: Iterable[float]) -> Course:
        """The course of a trial that goes on at the checkpoint of so many samples.

        It is that of the mark if that is this checkpoint's; of another one's the averages stay,
        but what comes next does not follow on. losses: up to there, for where there is no mark.
        """
        course = cls()
        if samples == 0:
            return course
        if mark is not None:
            course._first, course._lowest = mark.first, mark.lowest
            course._newest.extend(mark.newest if mark.samples == samples else ())
            return course
        for loss in losses:
            course.hear(loss, math.inf)
        course._newest.clear()
        return course

    def mark(self, samples: int) -> Mark:
        """The course as it is now, with a checkpoint at so many samples."""
        return Mark(
            samples=samples, first=self._first, lowest=self._lowest, newest=tuple(self._newest)
        )

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
