"""Several policies over the same table and seeds, as figures with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.replay.run import Outcome


@dataclass(frozen=True)
class Policy:
    """A search with a stopping rule, e.g. 'gp, hyperband', and its replays, one a seed."""

    name: str
    outcomes: tuple[Outcome, ...]

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "policy": self.name,
            "seeds": len(self.outcomes),
            "best": [outcome.best for outcome in self.outcomes],
            "hours": [outcome.ledger.used for outcome in self.outcomes],
            "saved": [outcome.ledger.saved for outcome in self.outcomes],
            "hours_to_target": [outcome.reached for outcome in self.outcomes],
            "target": self.outcomes[0].target,
        }

    @property
    def found(self) -> int:
        """In how many replays a trial came within 1 % of the best recorded one."""
        return sum(outcome.reached is not None for outcome in self.outcomes)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def hours_to_target(policy: Policy) -> tuple[float, float, float] | None:
    """Quartiles of the hours until the target; None where fewer than half of the replays found it.

    A replay that did not find it is taken to need more than any other.
    """
    reached = sorted(o.reached for o in policy.outcomes if o.reached is not None)
    if 2 * len(reached) < len(policy.outcomes):
        return None
    padded = reached + [float("inf")] * (len(policy.outcomes) - len(reached))

    def at(share: float) -> float:
        return padded[min(int(share * len(padded)), len(padded) - 1)]

    return at(0.25), at(0.5), at(0.75)
