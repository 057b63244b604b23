"""A trial's training loss as it is heard: has it exploded?"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

WINDOW = 8
"""How many reported steps are averaged: one batch's loss says little."""
HISTORY = 1024
"""How many steps a checkpoint may be told after it was taken: at two a second, over 8 minutes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A course as it was at so many samples, so that a trial resumed there has the same one.

    first, lowest: averages in nats a token, None before there are any. newest: losses of the
    newest steps, oldest first.
    """

    samples: int
    first: float | None = None
    lowest: float | None = None
    newest: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Mark:
        """From `dataclasses.asdict`, which in logs of older versions has an infinite `lowest`."""
        averaged = fields["first"] is not None
        lowest = fields["lowest"] if averaged else None
        return cls(**{**fields, "lowest": lowest, "newest": tuple(fields["newest"])})


class Course:
    """Averages over the newest steps, held against the first ones and the lowest."""

    def __init__(self, begin: Mark | None = None) -> None:
        """begin: how it was where it goes on, None for a trial that begins."""
        # A checkpoint is told once it is on the disk, when later steps have been heard already.
        self._marks = deque([begin or Mark(samples=0)], maxlen=HISTORY)

    @classmethod
    def resumed(cls, samples: int, mark: Mark | None, losses: Iterable[float]) -> Course:
        """The course of a trial that goes on at the checkpoint of so many samples.

        It is that of the mark if that is this checkpoint's; of another one's the averages stay,
        but what comes next does not follow on. losses: up to there, for where there is no mark.
        """
        if samples == 0:
            return cls()
        if mark is None:
            course = cls()
            for loss in losses:
                course.hear(samples, loss, math.inf)
            mark = replace(course._marks[-1], newest=())
        elif mark.samples != samples:
            mark = replace(mark, samples=samples, newest=())
        return cls(mark)

    def mark(self, samples: int) -> Mark | None:
        """The course as it was at a checkpoint; None if that is older than what is remembered."""
        for mark in reversed(self._marks):
            if mark.samples <= samples:
                return replace(mark, samples=samples)
        return None

    def hear(self, samples: int, loss: float, factor: float) -> str | None:
        """The step up to so many samples, loss in nats a token; says why it has exploded, or None.

        It has where it is no number, or where its average is above where it began and above
        `factor` times its lowest: near zero a multiple of the lowest alone would be noise.
        """
        if not math.isfinite(loss):
            return f"training loss became {loss}"
        before = self._marks[-1]
        newest = (*before.newest, loss)[-WINDOW:]
        self._marks.append(replace(before, samples=samples, newest=newest))
        if len(newest) < WINDOW:
            return None
        mean = fmean(newest)
        first = mean if before.first is None else before.first
        lowest = mean if before.lowest is None else min(before.lowest, mean)
        self._marks[-1] = Mark(samples=samples, first=first, lowest=lowest, newest=newest)
        if mean <= max(first, factor * lowest):
            return None
        return (
            f"training loss {mean:.2f} over {WINDOW} steps, above {first:.2f} at its "
            f"beginning and more than {factor:g} x its lowest {lowest:.2f}"
        )
