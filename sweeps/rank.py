"""How MIR ranks a study's trials against validation loss and gap, in numbers and one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs.events import Scored

ENOUGH = 5  # trials below which the sentence says so
WEAK = 0.3  # correlations nearer to 0 are not told from chance


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of final MIR with another reading, over `n` trials.

    expected: +1 if a lower MIR should go with a lower reading, -1 if with a higher one.
    rho: None with fewer than three trials or without any spread. p: of no association.
    """

    name: str
    expected: int
    n: int
    rho: float | None
    p: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether MIR ranks as this reading does; None where it says next to nothing of it."""
        return None if self.rho is None or abs(self.rho) < WEAK else self.rho * self.expected > 0


@dataclass(frozen=True)
class RankAgreement:
    """All agreements, and what they mean in one plain sentence."""

    agreements: tuple[Agreement, ...]
    sentence: str


_READINGS: tuple[tuple[str, int, Callable[[Scored], float]], ...] = (
    ("validation loss", 1, lambda scored: scored.guard.validation_loss),
    ("gap", -1, lambda scored: scored.guard.gap),
)


def rank_agreement(finals: Sequence[Scored]) -> RankAgreement:
    """Compare MIR with validation loss and gap over the last scores of complete trials.

    finals: one score a trial, all at the full budget; hand in the feasible ones to know whether
    MIR ranks among what may win, all of them to see what the guard was needed for.
    """
    mir = [float(scored.mir["mir"]) for scored in finals]
    agreements = tuple(
        _agreement(name, expected, mir, [read(scored) for scored in finals])
        for name, expected, read in _READINGS
    )
    return RankAgreement(agreements, _sentence(agreements, len(finals)))


def _agreement(name: str, expected: int, mir: Sequence[float], other: Sequence[float]) -> Agreement:
    n = len(mir)
    if n < 3 or len(set(mir)) < 2 or len(set(other)) < 2:
        return Agreement(name, expected, n, None, None)
    from scipy.stats import spearmanr

    result = spearmanr(mir, other)
    return Agreement(name, expected, n, float(result.statistic), float(result.pvalue))


def _sentence(agreements: Sequence[Agreement], n: int) -> str:
    told = [a for a in agreements if a.rho is not None]
    if not told:
        return f"{n} trials are too few, or too alike, to say how MIR ranks them."
    figures = " and ".join(f"{a.rho:+.2f} with {a.name}" for a in told)
    base = f"Over {n} trials, Spearman's rank correlation of final MIR is {figures}"
    verdicts = (
        (False, "it contradicts", ", so a better MIR did not mean a better model here"),
        (True, "it agrees with", ""),
        (None, "it says next to nothing about", ""),
    )
    clauses = [
        f"{verb} {' and '.join(a.name for a in told if a.agrees is verdict)}{tail}"
        for verdict, verb, tail in verdicts
        if any(a.agrees is verdict for a in told)
    ]
    caution = "" if n >= ENOUGH else f"; {n} trials say little"
    return f"{base}: {'; '.join(clauses)}{caution}."
