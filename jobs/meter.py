"""How fast a run is and when it says so."""

from __future__ import annotations

import math
import time

from jobs.engine.deepspeed_engine import StepResult
from jobs.events import Step

# Steps nearer together than this are not reported, save those that a score or checkpoint follows.
STEP_EVERY_S = 0.5


class Meter:
    """Speed since the last reported step; scoring and saving do not count.

    trained_s: seconds spent on steps since the run began, earlier attempts included.
    """

    def __init__(self, samples: int, trained_s: float) -> None:
        self.trained_s = trained_s
        self._samples, self._busy, self._read = samples, 0.0, -math.inf

    def add(self, seconds: float) -> None:
        """Count the time of a step."""
        self.trained_s += seconds
        self._busy += seconds

    @property
    def due(self) -> bool:
        """Whether the last report is long enough ago."""
        return time.monotonic() - self._read >= STEP_EVERY_S

    def read(self, samples: int, result: StepResult, waited_s: float) -> Step:
        """Report the step that was just made.

        waited_s: what of the time since the last report went into waiting for the loader.
        """
        busy = max(self._busy, 1e-9)
        speed = (samples - self._samples) / busy
        self._samples, self._busy, self._read = samples, 0.0, time.monotonic()
        return Step(
            samples=samples,
            loss=result.loss,
            learning_rate=result.learning_rate,
            grad_norm=result.grad_norm,
            samples_per_second=speed,
            loader_wait=min(1.0, waited_s / busy),
            overflows=result.overflows,
        )
