"""Rules that compare a trial with the others, by the recipe's names.

Optuna's pruners compare, over a throw-away study that holds only the points that take part; here
is what it was compared with and how sure that is, which Optuna does not tell. Fidelity is samples
seen.

Sources: median, Golovin et al. 2017 (Vizier); successive halving, Li et al. 2020 (ASHA);
Hyperband, Li et al. 2018, with brackets allotted as in Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.objective import Direction
from sweeps.seeds import seed_of
from sweeps.spec import StopSpec

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

_RUNG = "completed_rung_"  # Optuna's name for the value with which a trial reached a rung
_Rival = tuple[Mapping[int, float], Mapping[str, float]]  # values by samples, attributes


@dataclass(frozen=True)
class Point:
    """A feasible score past min_samples: the objective and its standard error."""

    samples: int
    value: float
    error: float


@dataclass(frozen=True)
class Race:
    """One trial against the others. Points by rising samples; mine is not empty.

    slack: how many samples a rival's newest point may lie before mine (the scoring cadence).
    """

    number: int
    mine: Sequence[Point]
    rivals: Mapping[int, Sequence[Point]]
    direction: Direction
    min_samples: int
    budget: int
    slack: int
    seed: int


@dataclass(frozen=True)
class Comparison:
    """What the trial was measured against, e.g. 'a median' of 2.60 with standard error 0.03."""

    behind: bool
    value: float
    error: float
    label: str


def compare(race: Race, stop: StopSpec) -> Comparison | str:
    """The rule's answer, or why nothing can be said yet."""
    return RULES[stop.rule](race, stop)


def _none(_race: Race, _stop: StopSpec) -> str:
    return "no rule compares trials"


def _median(race: Race, stop: StopSpec) -> Comparison | str:
    return _percentile(race, stop.model_copy(update={"percentile": 50.0}))


def _percentile(race: Race, stop: StopSpec) -> Comparison | str:
    from optuna.pruners import PercentilePruner

    samples = race.mine[-1].samples
    here = [p for points in race.rivals.values() if (p := _at(points, samples, race.slack))]
    if len(here) < stop.min_trials:
        return _too_few(len(here), stop.min_trials, samples)
    pruner = PercentilePruner(stop.percentile, n_startup_trials=0, n_min_trials=stop.min_trials)
    # Only the newest points: MIR rises before it falls, so a low early value excuses nothing.
    rivals: list[_Rival] = [({samples: point.value}, {}) for point in here]
    behind, _ = _optuna_says(pruner, race, {}, rivals)
    share = stop.percentile if race.direction == "minimize" else 100 - stop.percentile
    value, error = _quantile(here, share / 100)
    name = "a median" if stop.percentile == 50 else f"a {stop.percentile:g} % cut"
    return Comparison(behind, value, error, f"{name} of {{}}")


def _halving(race: Race, stop: StopSpec, bracket: int = 0) -> Comparison | str:
    from optuna.pruners import SuccessiveHalvingPruner

    pruner = SuccessiveHalvingPruner(race.min_samples, stop.reduction_factor, bracket)
    steps = _rungs(race, stop.reduction_factor, bracket)
    now = [k for k, step in enumerate(steps) if step <= race.mine[-1].samples]
    before = _rung_points(race.mine[:-1], steps)
    if len(now) == len(before):
        return "between rungs"
    reached = {number: _rung_points(points, steps) for number, points in race.rivals.items()}
    rung = now[-1]
    here = [points[rung] for points in reached.values() if len(points) > rung]
    if len(here) < stop.min_trials:
        return _too_few(len(here), stop.min_trials, steps[rung])
    mine = {f"{_RUNG}{k}": point.value for k, point in enumerate(before)}
    rivals = [
        (
            {p.samples: p.value for p in points},
            {f"{_RUNG}{k}": p.value for k, p in enumerate(points)},
        )
        for points in reached.values()
        if points
    ]
    behind, attributes = _optuna_says(pruner, race, mine, rivals)
    # A score that crosses several rungs at once may fall at an earlier one than the last.
    rung = max(int(name.removeprefix(_RUNG)) for name in attributes if name.startswith(_RUNG))
    here = [points[rung] for points in reached.values() if len(points) > rung]
    cut = _cut([*here, race.mine[-1]], stop.reduction_factor, race.direction)
    text = f"{{}} for the best 1 in {stop.reduction_factor} of {len(here) + 1} at rung {rung + 1}"
    return Comparison(behind, cut.value, cut.error, text)


def _hyperband(race: Race, stop: StopSpec) -> Comparison | str:
    mine = bracket_of(race, race.number, stop.reduction_factor)
    rivals = {
        number: points
        for number, points in race.rivals.items()
        if bracket_of(race, number, stop.reduction_factor) == mine
    }
    same = Race(**{**vars(race), "rivals": rivals})
    return _halving(same, stop, mine)


RULES: Mapping[str, Callable[[Race, StopSpec], Comparison | str]] = {
    "none": _none,
    "median": _median,
    "percentile": _percentile,
    "successive-halving": _halving,
    "hyperband": _hyperband,
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


def _too_few(found: int, needed: int, samples: int) -> str:
    trials = "trial" if found == 1 else "trials"
    return f"{found} other {trials} at {samples:,} samples, {needed} needed to compare"


def _at(points: Sequence[Point], samples: int, slack: int) -> Point | None:
    """The newest point at or before `samples`, unless it lies a whole cadence or more before."""
    for point in reversed(points):
        if point.samples <= samples:
            return point if point.samples > samples - slack else None
    return None


def _rungs(race: Race, factor: int, bracket: int) -> list[int]:
    steps, step = [], race.min_samples * factor**bracket
    while step <= race.budget:
        steps.append(step)
        step *= factor
    return steps


def _rung_points(points: Sequence[Point], steps: Sequence[int]) -> list[Point]:
    """For every rung reached, the first point at or past it."""
    found = []
    for step in steps:
        past = [point for point in points if point.samples >= step]
        if not past:
            break
        found.append(past[0])
    return found


def _cut(points: Sequence[Point], factor: int, direction: Direction) -> Point:
    """The last point that goes on: the best 1 in `factor`, at least one."""
    ranked = sorted(points, key=lambda p: p.value, reverse=direction == "maximize")
    return ranked[max(len(points) // factor - 1, 0)]


def _quantile(points: Sequence[Point], share: float) -> tuple[float, float]:
    """The interpolated quantile, and its standard error from those of the points around it."""
    ranked = sorted(points, key=lambda point: point.value)
    place = share * (len(ranked) - 1)
    low, high = ranked[math.floor(place)], ranked[math.ceil(place)]
    part = place - math.floor(place)
    value = (1 - part) * low.value + part * high.value
    if low is high:
        return value, low.error
    return value, math.hypot((1 - part) * low.error, part * high.error)


def _optuna_says(
    pruner: BasePruner,
    race: Race,
    mine: Mapping[str, float],
    rivals: Sequence[_Rival],
) -> tuple[bool, Mapping[str, object]]:
    """Ask a pruner about my newest point; also the trial's attributes afterwards."""
    import optuna

    study = optuna.create_study(direction=race.direction, study_name="throw-away")
    for values, attributes in rivals:
        study.add_trial(_frozen("COMPLETE", values, attributes))
    newest = race.mine[-1]
    study.add_trial(_frozen("RUNNING", {newest.samples: newest.value}, mine))
    trial = study.get_trials(deepcopy=False)[-1]
    behind = pruner.prune(study, trial)
    return behind, study.get_trials(deepcopy=False)[-1].system_attrs


def _frozen(
    state: str, values: Mapping[int, float], attributes: Mapping[str, float]
) -> FrozenTrial:
    import optuna

    done = state == "COMPLETE"
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[state],
        value=list(values.values())[-1] if done else None,
        intermediate_values=dict(values),
        system_attrs=dict(attributes),
    )
