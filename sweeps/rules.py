"""Rules that may stop a trial, by the recipe's names.

Those that compare trials do so at equal samples (fidelity is samples seen): Optuna's pruner of
that name says whether a trial is behind, and the board with what figure it was compared and how
sure that is. The others look at the trial alone.

Sources: median, Golovin et al. 2017 (Vizier); successive halving, Li et al. 2020 (ASHA);
Hyperband, Li et al. 2018, with brackets allotted as in Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeps import pruners
from sweeps.board import EVERYONE, Board, Group, Point, Ranking, goes_on, quantile
from sweeps.objective import Direction
from sweeps.seeds import seed_of
from sweeps.spec import RuleSpec, StopSpec

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

__all__ = ["AT_RUNGS", "RULES", "Comparison", "Point", "Race", "Stop", "bracket_of", "compare"]


@dataclass(frozen=True)
class Race:
    """One trial against the others. Points by rising samples; mine is not empty.

    slack: how many samples a rival's newest point may lie before mine (the scoring cadence).
    losses: my validation losses so far, feasible or not.
    """

    number: int
    mine: Sequence[Point]
    rivals: Mapping[int, Sequence[Point]]
    direction: Direction
    min_samples: int
    budget: int
    slack: int
    seed: int
    losses: Sequence[float] = field(default=())


@dataclass(frozen=True)
class Comparison:
    """What the trial was measured against, e.g. 'a median' of 2.60 with standard error 0.03.

    asked: whether Optuna's pruner would stop the trial; slower than all else here.
    """

    asked: Callable[[], bool] = field(compare=False)
    value: float
    error: float
    label: str

    @property
    def behind(self) -> bool:
        """What the pruner says."""
        return self.asked()


@dataclass(frozen=True)
class Stop:
    """The trial's own course is reason enough."""

    reason: str


AT_RUNGS = ("successive-halving", "hyperband")
"""Rules that compare at rungs of their own; all others do so at every score."""

Answer = Comparison | Stop | str
"""A comparison, a reason to stop, or why nothing can be said yet."""


def compare(race: Race, stop: StopSpec) -> Answer:
    """The first rule's answer, over the rivals that the race names."""
    return ask(race, Board.of(race.rivals), stop.chain[0])


def ask(race: Race, board: Board, rule: RuleSpec) -> Answer:
    """A rule's answer, over the rivals on the board."""
    return RULES[rule.rule](race, board, rule)


def _none(_race: Race, _board: Board, _rule: RuleSpec) -> Answer:
    return "no rule compares trials"


def _median(race: Race, board: Board, rule: RuleSpec) -> Answer:
    return _quantile(race, board, rule.min_trials, 50.0, pruners.median())


def _percentile(race: Race, board: Board, rule: RuleSpec) -> Answer:
    pruner = pruners.percentile(rule.percentile)
    return _quantile(race, board, rule.min_trials, rule.percentile, pruner)


def _quantile(race: Race, board: Board, least: int, best: float, pruner: BasePruner) -> Answer:
    newest = race.mine[-1]
    # Only the newest points: MIR rises before it falls, so a low early value excuses nothing.
    here = board.at(newest.samples, race.slack, race.min_samples, race.number)
    if len(here) < least:
        return _too_few(len(here), least, newest.samples)
    share = best if race.direction == "minimize" else 100 - best
    value, error = quantile(here, share / 100)
    name = "a median" if best == 50 else f"a {best:g} % cut"
    near = pruners.near_quantile(here.values, share)
    others = pruners.View(near, newest.samples, race.direction)
    return Comparison(_asked(race, value, others, pruner), value, error, f"{name} of {{}}")


def _halving(
    race: Race, board: Board, rule: RuleSpec, bracket: int = 0, group: Group = EVERYONE
) -> Answer:
    steps = _rungs(race, rule.reduction_factor, bracket)
    newest = race.mine[-1]
    now = [step for step in steps if step <= newest.samples]
    before = race.mine[-2].samples if len(race.mine) > 1 else 0
    due = [(k, step) for k, step in enumerate(now) if step > before]
    if not due:
        return "between rungs"
    pruner = pruners.halving(race.min_samples, rule.reduction_factor, bracket)
    # A score that crosses several rungs at once may fall at an earlier one than the last.
    found: Answer = ""
    for k, step in due:
        here = board.rung(step, group, race.min_samples, race.number)
        found = _at_rung(race, rule, here, k, step, pruner)
        if step < due[-1][1] and isinstance(found, Comparison) and found.behind:
            break
    return found


def _at_rung(
    race: Race, rule: RuleSpec, here: Ranking, k: int, step: int, pruner: BasePruner
) -> Answer:
    if len(here) < rule.min_trials:
        return _too_few(len(here), rule.min_trials, step)
    newest = race.mine[-1]
    entry = (newest.value, race.number, newest.error)
    value, _, error = goes_on(here, entry, rule.reduction_factor, race.direction)
    text = f"{{}} for the best 1 in {rule.reduction_factor} of {len(here) + 1} at rung {k + 1}"
    near = pruners.near_rung(here.values, rule.reduction_factor, race.direction)
    others = pruners.View(near, step, race.direction, k)
    return Comparison(_asked(race, value, others, pruner), value, error, text)


def _asked(
    race: Race, figure: float, others: pruners.View, pruner: BasePruner
) -> Callable[[], bool]:
    """Ask the pruner; it stops no trial that is not worse than the figure, as the tests show."""
    mine = race.mine[-1].value
    return lambda: _worse(mine, figure, race) and pruners.prunes(pruner, mine, others)


def _hyperband(race: Race, board: Board, rule: RuleSpec) -> Answer:
    factor = rule.reduction_factor
    mine = bracket_of(race, race.number, factor)
    key = (race.seed, race.budget, race.min_samples, factor, mine)
    group = Group(key, lambda number: bracket_of(race, number, factor) == mine)
    return _halving(race, board, rule, mine, group)


def _plateau(race: Race, board: Board, rule: RuleSpec) -> Answer:
    """Nothing gained, beyond error bars, over the last `patience` scores; the best one runs on."""
    if len(race.mine) <= rule.patience:
        return f"{len(race.mine)} scores, {rule.patience + 1} needed to see a plateau"
    sign = 1.0 if race.direction == "minimize" else -1.0
    before = min(race.mine[: -rule.patience], key=lambda point: sign * point.value)
    best = min(race.mine[-rule.patience :], key=lambda point: sign * point.value)
    gained = sign * (before.value - best.value)
    text = f"gained {gained:.3f} over the last {rule.patience} scores"
    if gained > math.hypot(before.error, best.error):
        return text
    here = board.at(race.mine[-1].samples, race.slack, race.min_samples, race.number)
    rivals = [sign * entry[0] for entry in (here[:1] if sign > 0 else here[-1:])]
    if not rivals or sign * race.mine[-1].value <= rivals[0]:
        return f"{text}, but no other trial is better here"
    noise = math.hypot(before.error, best.error)
    return Stop(f"a plateau: {text}, noise {noise:.3f}, at {race.mine[-1].samples:,} samples")


def _divergence(race: Race, _board: Board, rule: RuleSpec) -> Answer:
    """The validation loss has come to a multiple of its own lowest."""
    if len(race.losses) < 2:
        return "no course of the loss yet"
    lowest, newest = min(race.losses), race.losses[-1]
    if newest <= rule.factor * lowest:
        return f"validation loss {newest:.2f}, its lowest {lowest:.2f}"
    return Stop(
        f"diverged: validation loss {newest:.2f}, more than {rule.factor:g} x its lowest "
        f"{lowest:.2f}"
    )


RULES: Mapping[str, Callable[[Race, Board, RuleSpec], Answer]] = {
    "none": _none,
    "median": _median,
    "percentile": _percentile,
    "successive-halving": _halving,
    "hyperband": _hyperband,
    "plateau": _plateau,
    "divergence": _divergence,
}


def bracket_of(race: Race, number: int, factor: int) -> int:
    """Hyperband's bracket of a trial: drawn from the seed, early-stopping ones more often."""
    ratio = max(race.budget / race.min_samples, 1.0)
    count = math.floor(math.log(ratio, factor) + 1e-9) + 1
    allotted = [
        math.ceil(count * factor ** (count - 1 - bracket) / (count - bracket))
        for bracket in range(count)
    ]
    place = seed_of(race.seed, "bracket", number) % sum(allotted)
    return next(bracket for bracket in range(count) if place < sum(allotted[: bracket + 1]))


def _worse(mine: float, other: float, race: Race) -> bool:
    return mine > other if race.direction == "minimize" else mine < other


def _too_few(found: int, needed: int, samples: int) -> str:
    trials = "trial" if found == 1 else "trials"
    return f"{found} other {trials} at {samples:,} samples, {needed} needed to compare"


def _rungs(race: Race, factor: int, bracket: int) -> list[int]:
    steps, step = [], race.min_samples * factor**bracket
    while step <= race.budget:
        steps.append(step)
        step *= factor
    return steps
