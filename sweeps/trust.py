"""One sentence on whether MIR can be trusted for a study, from its correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sweeps.correlation import LEVEL, Correlation, Interval

ENOUGH = 5  # trials below which nothing is concluded
CHANCE = 0.05


class Trust(StrEnum):
    """What a study shows of MIR."""

    YES = "yes"
    NO = "no"
    NOT_SHOWN = "not shown"
    TOO_FEW = "too few trials"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """since: share of the training from which on MIR can be trusted, None where it cannot.

    better: readings with a higher, positive Spearman than MIR at the end, best first; those
    marked True are better beyond chance.
    """

    trust: Trust
    since: float | None
    better: tuple[tuple[str, bool], ...]
    sentence: str


def judge(found: Sequence[Correlation], score: str, main: str = "MIR") -> Finding:
    """What the correlations with the downstream measure `score` say of the reading `main`.

    A reading ranks the trials beyond chance if its interval excludes 0 and a permutation test
    agrees; it can be trusted from the earliest time after which that holds at every time.
    """
    course = sorted((c for c in found if c.name == main), key=lambda c: c.fraction)
    last = course[-1] if course else None
    if last is None or last.n < ENOUGH or last.spearman is None:
        n = last.n if last else 0
        text = (
            f"{n} trials with a downstream score are too few, or too alike, to say whether {main} "
            f"can be trusted for this study: {ENOUGH} that differ are the least."
        )
        return Finding(trust=Trust.TOO_FEW, since=None, better=(), sentence=text)
    end = [c for c in found if c.fraction == last.fraction and c.name != main]
    better = _better(end)
    trust = _trust(last)
    since = _since(course) if trust is Trust.YES else None
    figures = f"Spearman {_range(last.spearman)} over {last.n} trials"
    text = f"{_opening(trust, main, score, since, figures)}{_others(end, better)}."
    return Finding(trust=trust, since=since, better=better, sentence=text)


def _trust(one: Correlation) -> Trust:
    if _beyond_chance(one, 1):
        return Trust.YES
    return Trust.NO if _beyond_chance(one, -1) else Trust.NOT_SHOWN


def _beyond_chance(one: Correlation, sign: int) -> bool:
    if one.spearman is None or one.p is None or one.p > CHANCE:
        return False
    bound = one.spearman.low if sign > 0 else one.spearman.high
    return bound is not None and bound * sign > 0


def _since(course: Sequence[Correlation]) -> float:
    """The earliest time from which on every later one is beyond chance; the last one is."""
    since = course[-1].fraction
    for one in reversed(course):
        if not _beyond_chance(one, 1):
            break
        since = one.fraction
    return since


def _better(end: Sequence[Correlation]) -> tuple[tuple[str, bool], ...]:
    ahead = [
        (c.ahead, c.name)
        for c in end
        if c.ahead is not None and c.ahead.value > 0 and c.spearman and c.spearman.value > 0
    ]
    ordered = sorted(ahead, key=lambda pair: -pair[0].value)
    return tuple((name, gain.low is not None and gain.low > 0) for gain, name in ordered)


def _opening(trust: Trust, main: str, score: str, since: float | None, figures: str) -> str:
    match trust:
        case Trust.YES:
            assert since is not None
            return (
                f"{main} can be trusted for this study from {since:.0%} of the training on: at the "
                f"end it ranks the trials as {score} does ({figures})"
            )
        case Trust.NO:
            return (
                f"{main} misleads in this study: trials that it prefers score worse in {score} "
                f"({figures})"
            )
        case _:
            return (
                f"This study does not show that {main} can be trusted: at the end of training its "
                f"ranking by {score} is not told from chance ({figures})"
            )


def _others(end: Sequence[Correlation], better: Sequence[tuple[str, bool]]) -> str:
    if not better:
        return "; nothing else that was read predicts better"
    by_name = {c.name: c for c in end}
    surely = [name for name, sure in better if sure]
    name = surely[0] if surely else better[0][0]
    one = by_name[name].spearman
    assert one is not None
    same = [
        other for other, _ in better
        if other != name and by_name[other].spearman == one
    ]  # fmt: skip
    names = " and ".join([name, *same])
    tail = "" if surely else ", by no more than chance may give"
    verb = "predict" if same else "predicts"
    return f"; {names} {verb} better ({_range(one)}){tail}"


def _range(one: Interval) -> str:
    if one.low is None or one.high is None:
        return f"{one.value:+.2f}"
    return f"{one.value:+.2f}, {LEVEL:.0%} interval {one.low:+.2f} to {one.high:+.2f}"
