"""Which scores count: a low MIR of a model that says nothing about the picture must not win.

Why: a collapsed projector reaches the lowest MIR of all (design section 3). Each named constraint
gives a violation in units of its own reading, 0 or less where it is met, as Optuna wants them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jobs.events import Scored
from sweeps.mistakes import Mistake, no_such, show
from sweeps.spec import GuardSpec

Curve = Sequence[Scored]


@dataclass(frozen=True)
class Feasibility:
    """Whether the newest score counts. violations: by constraint, above 0 where it is broken."""

    feasible: bool
    violations: dict[str, float]
    reason: str


@dataclass(frozen=True)
class _Constraint:
    """measure: violation of the newest score, or None if nothing can be said yet."""

    measure: Callable[[Curve, float, Sequence[Curve]], float | None]
    explain: Callable[[Curve, float, float], str]
    takes: str | None


def _loss_below_start(scores: Curve, _parameter: float, _others: Sequence[Curve]) -> float | None:
    if len(scores) < 2:
        return None
    return scores[-1].guard.validation_loss - scores[0].guard.validation_loss


def _gap_not_negative(scores: Curve, factor: float, _others: Sequence[Curve]) -> float:
    reading = scores[-1].guard
    return -reading.gap - factor * reading.gap_error


def _gap_above_noise(scores: Curve, factor: float, _others: Sequence[Curve]) -> float | None:
    if len(scores) < 2:
        return None
    reading = scores[-1].guard
    # A projector that gives every picture the same tokens has gap and noise 0: that is no gap.
    return max(factor * reading.gap_error - reading.gap, _NO_GAP - reading.gap)


def _loss_near_best(scores: Curve, fraction: float, others: Sequence[Curve]) -> float | None:
    samples, mine = scores[-1].samples, scores[-1].guard.validation_loss
    losses = [s.guard.validation_loss for curve in others for s in curve if s.samples == samples]
    return _beyond(mine, min(losses), fraction) if losses else None


def _beyond(loss: float, best: float, fraction: float) -> float:
    return loss - best * (1.0 + fraction)


def _too_far(loss: float, samples: int, fraction: float, violation: float) -> str:
    return (
        f"validation loss {loss:.2f} is more than {100 * fraction:g} % above the best feasible "
        f"one at {samples:,} samples, by {violation:.2f}"
    )


_NO_GAP = 1e-9
NEAR_BEST = "loss-near-best"

CONSTRAINTS: Mapping[str, _Constraint] = {
    "loss-below-start": _Constraint(
        _loss_below_start,
        lambda scores, _p, _v: (
            f"validation loss {scores[-1].guard.validation_loss:.2f} is not below its start "
            f"{scores[0].guard.validation_loss:.2f}"
        ),
        takes=None,
    ),
    "gap-not-negative": _Constraint(
        _gap_not_negative,
        lambda scores, factor, _v: (
            f"right pictures are worse than wrong ones by {-scores[-1].guard.gap:.2f}, beyond "
            f"{factor:g} x {scores[-1].guard.gap_error:.2f} of noise"
        ),
        takes="factor of the gap's standard error",
    ),
    "gap-above-noise": _Constraint(
        _gap_above_noise,
        lambda scores, factor, _v: (
            f"right pictures are not better than wrong ones: gap {scores[-1].guard.gap:.3f}, "
            f"{factor:g} x {scores[-1].guard.gap_error:.3f} of noise"
        ),
        takes="factor of the gap's standard error",
    ),
    NEAR_BEST: _Constraint(
        _loss_near_best,
        lambda scores, fraction, violation: _too_far(
            scores[-1].guard.validation_loss, scores[-1].samples, fraction, violation
        ),
        takes="fraction above the best",
    ),
}


def feasibility(scores: Curve, guard: GuardSpec, others: Sequence[Curve] = ()) -> Feasibility:
    """Judge the newest of `scores` (all scores of one trial, the first before training).

    others: the feasible scores of the other trials, for constraints that compare. A constraint
    that cannot be judged yet counts as met (violation 0): the score before training has no start
    to be below, and the first trial nobody to be near (see `outdone`). A loss or gap that is not
    finite breaks every constraint that reads it, with an infinite violation.
    """
    violations: dict[str, float] = {}
    reasons: list[str] = []
    for name, parameter in guard.constraints.items():
        constraint = CONSTRAINTS[name]
        given = 0.0 if parameter is None else parameter
        violation = constraint.measure(scores, given, others)
        if violation is None or violation <= 0:
            violations[name] = violation or 0.0
        else:  # NaN too
            violations[name] = float("inf") if math.isnan(violation) else violation
            reasons.append(constraint.explain(scores, given, violations[name]))
    return Feasibility(not reasons, violations, "; ".join(reasons))


def outdone(losses: Mapping[int, Mapping[int, float]], guard: GuardSpec) -> dict[int, str]:
    """Whose last score is too far from the best known by now, and the reason for each.

    losses: by trial and samples, the validation losses of the scores that counted when they came
    in. When a score comes in, `feasibility` knows only the others that are there by then; this is
    the same in whatever order they came. Empty where the guard does not ask for it.
    """
    fraction = guard.constraints.get(NEAR_BEST)
    if fraction is None:
        return {}
    best: dict[int, float] = {}
    for curve in losses.values():
        for samples, loss in curve.items():
            if loss < best.get(samples, math.inf):
                best[samples] = loss
    found = {}
    for number, curve in losses.items():
        last = max(curve, default=0)
        if last in best:
            violation = _beyond(curve[last], best[last], fraction)
            if not violation <= 0:  # NaN too
                broken = math.inf if math.isnan(violation) else violation
                found[number] = _too_far(curve[last], last, fraction, broken)
    return found


def guard_mistakes(guard: GuardSpec) -> list[Mistake]:
    """Unknown constraints, and parameters that are missing, negative or not taken."""
    mistakes = []
    for name, parameter in guard.constraints.items():
        path = ("study", "guard", "constraints", name)
        if name not in CONSTRAINTS:
            mistakes.append(Mistake(path, no_such("constraint", name, CONSTRAINTS)))
            continue
        takes = CONSTRAINTS[name].takes
        if takes is None and parameter is not None:
            mistakes.append(Mistake(path, f"{parameter:g} is refused: it takes none, give null."))
        elif takes is not None and not (parameter is not None and 0 <= parameter < float("inf")):
            mistakes.append(
                Mistake(path, f"{show(parameter)} is refused: give the {takes}, 0 or more.")
            )
    return mistakes
