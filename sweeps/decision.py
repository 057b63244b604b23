"""What the rules answer: a verdict and the reason that the user will read."""

from __future__ import annotations

from enum import StrEnum

from jobs.spec import Frozen


class Verdict(StrEnum):
    """CONTINUE lets the trial run; PRUNE stops it; AUDIT would have stopped it but lets it run.

    PAUSE stops it for now: it keeps its newest checkpoint and may be resumed from it.
    """

    CONTINUE = "continue"
    PRUNE = "prune"
    AUDIT = "audit"
    PAUSE = "pause"


class Decision(Frozen):
    """A verdict with its reason, e.g. 'MIR 2.91 +/- 0.04 against a median of 2.60 at 40,000'."""

    verdict: Verdict
    reason: str
