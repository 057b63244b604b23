"""How often a sweep is drawn while it runs: not more than it is worth, and never long not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from orchestrator.state import SweepView

SHOW_S = 0.2
SHOW_SHARE = 0.05
"""Most of the loop's time that drawing may take: a screen of 10,000 trials is drawn less often."""
SHOW_MAX_S = 10.0
"""But not less often than this: a machine that stood still once would silence it for minutes."""


class Screen:
    """Calls `draw` with a view of the sweep where it is time to; draw: None draws nothing."""

    def __init__(self, draw: Callable[[SweepView], None] | None) -> None:
        self._draw = draw
        self._again_at = -math.inf

    def show(self, take: Callable[[], SweepView], *, last: bool = False) -> None:
        """take: makes the view, which costs too. last: now, however short a time has passed."""
        now = time.monotonic()
        if self._draw is not None and (last or now >= self._again_at):
            self._draw(take())
            after = time.monotonic()
            self._again_at = after + min(max(SHOW_S, (after - now) / SHOW_SHARE), SHOW_MAX_S)
