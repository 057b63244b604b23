"""Whether a trial that has just scored goes on: a pure function of the scores so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from jobs.events import Scored
from jobs.spec import JobSpec
from sweeps.decision import Decision, Verdict
from sweeps.guard import Curve, feasibility
from sweeps.objective import direction, label, objective_error, objective_value
from sweeps.rules import Comparison, Point, Race, compare
from sweeps.seeds import seed_of
from sweeps.spec import GuardSpec, StopSpec, SweepSpec


def decide(
    number: int, mine: Curve, others: Mapping[int, Curve], *, sweep: SweepSpec, job: JobSpec
) -> Decision:
    """Judge trial `number` after its newest score.

    mine: all its scores, the first before training. others: all scores of the other trials by
    number, whatever became of them. job: the trial's, for its budget and warm-up. Only feasible
    scores at or past min_samples take part, and a rule acts only if the error bars separate. A
    trial at its full budget always goes on. Raises ProtocolError if the scores of two trials do
    not follow one protocol.
    """
    stop, budget = sweep.stop, job.optim.steps * job.optim.global_batch
    earliest = min_samples(stop, job)
    newest = mine[-1]
    if newest.samples >= budget:
        return Decision(verdict=Verdict.CONTINUE, reason="the full budget is spent")
    if newest.samples < earliest:
        reason = f"no score takes part before {earliest:,} samples"
        return Decision(verdict=Verdict.CONTINUE, reason=reason)
    _require_one_protocol(newest, others)
    guard = sweep.study.guard
    counting = {n: _counting(curve, guard, earliest, {}) for n, curve in others.items()}
    infeasible = _infeasible_run(mine, guard, earliest, counting)
    if infeasible:
        return _infeasible(number, infeasible, sweep)
    race = Race(
        number=number,
        mine=_points(_counting(mine, guard, earliest, counting), sweep),
        rivals={n: _points(curve, sweep) for n, curve in counting.items() if curve},
        direction=direction(sweep.study.objective),
        min_samples=earliest,
        budget=budget,
        slack=job.score.every_samples,
        seed=sweep.study.seed,
    )
    return _compared(race, compare(race, stop), sweep)


def min_samples(stop: StopSpec, job: JobSpec) -> int:
    """Samples before which no score takes part; by default past warm-up and a first quarter.

    MIR rises before it falls, so early scores would stop the wrong trials (design section 3).
    """
    if stop.min_samples is not None:
        return stop.min_samples
    return math.ceil(max(job.optim.warmup_ratio, 0.25) * job.optim.samples)


def separates(mine: Point, other: Comparison, confidence: float) -> bool:
    """Whether the two values differ beyond their errors, one-sided; always at confidence 0."""
    if confidence == 0:
        return True
    z = max(NormalDist().inv_cdf(confidence), 0.0)
    return abs(mine.value - other.value) > z * math.hypot(mine.error, other.error)


def audited(sweep: SweepSpec, number: int) -> bool:
    """Whether the trial runs on although it would be stopped; fixed by seed and number."""
    return seed_of(sweep.study.seed, "audit", number) / 2**32 < sweep.stop.audit


def _compared(race: Race, answer: Comparison | str, sweep: SweepSpec) -> Decision:
    if isinstance(answer, str):
        return Decision(verdict=Verdict.CONTINUE, reason=answer)
    mine = race.mine[-1]
    against = answer.label.format(f"{answer.value:.2f} +/- {answer.error:.2f}")
    reason = (
        f"{label(sweep.study.objective)} {mine.value:.2f} +/- {mine.error:.2f} against {against} "
        f"at {mine.samples:,} samples"
    )
    if not answer.behind:
        return Decision(verdict=Verdict.CONTINUE, reason=reason)
    if not separates(mine, answer, sweep.stop.confidence):
        reason += f", not separate at confidence {sweep.stop.confidence:g}"
        return Decision(verdict=Verdict.CONTINUE, reason=reason)
    return _stopped(race.number, reason, sweep)


def _infeasible(number: int, reasons: Sequence[str], sweep: SweepSpec) -> Decision:
    patience = sweep.stop.infeasible_patience
    count = len(reasons)
    reason = f"infeasible at {count} score{'s' if count > 1 else ''} in a row: {reasons[-1]}"
    if patience == 0 or count < patience:
        return Decision(verdict=Verdict.CONTINUE, reason=reason)
    return _stopped(number, reason, sweep)


def _stopped(number: int, reason: str, sweep: SweepSpec) -> Decision:
    if audited(sweep, number):
        return Decision(verdict=Verdict.AUDIT, reason=f"runs on for the audit: {reason}")
    return Decision(verdict=Verdict.PRUNE, reason=reason)


def _counting(
    curve: Curve, guard: GuardSpec, earliest: int, others: Mapping[int, Curve]
) -> list[Scored]:
    """The scores that take part: feasible, and at or past `earliest`."""
    rivals = list(others.values())
    return [
        scored
        for i, scored in enumerate(curve)
        if scored.samples >= earliest and feasibility(curve[: i + 1], guard, rivals).feasible
    ]


def _infeasible_run(
    curve: Curve, guard: GuardSpec, earliest: int, others: Mapping[int, Curve]
) -> list[str]:
    """Why each of the newest scores in a row is infeasible, oldest first."""
    reasons: list[str] = []
    for end in range(len(curve), 0, -1):
        found = feasibility(curve[:end], guard, list(others.values()))
        if curve[end - 1].samples < earliest or found.feasible:
            break
        reasons.insert(0, found.reason)
    return reasons


def _points(curve: Curve, sweep: SweepSpec) -> list[Point]:
    objective = sweep.study.objective
    return [
        Point(s.samples, objective_value(objective, s), objective_error(objective, s))
        for s in curve
    ]


def _require_one_protocol(newest: Scored, others: Mapping[int, Curve]) -> None:
    for curve in others.values():
        if curve and curve[-1].mir["protocol"] != newest.mir["protocol"]:
            newest.report.require_comparable(curve[-1].report)
