"""Whether a trial that has just scored goes on, and whether its score counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from jobs.events import Scored, Step
from jobs.spec import JobSpec
from sweeps.board import Board, Point
from sweeps.course import Course, Mark
from sweeps.decision import Decision, Verdict
from sweeps.guard import NEAR_BEST, Curve, Feasibility, feasibility
from sweeps.objective import direction, label, objective_error, objective_value
from sweeps.pruners import require_answers
from sweeps.rules import AT_RUNGS, Comparison, Race, Stop, ask
from sweeps.seeds import seed_of
from sweeps.spec import StopSpec, SweepSpec


@dataclass(frozen=True)
class Standing:
    """How a paused trial compares by now.

    behind: by how much more than its error bars it is worse than what it is measured against, in
    units of the objective; at or below 0 no rule would stop it. reason: with the figures.
    """

    behind: float
    reason: str


class Judge:
    """Remembers what counts of every trial, so that a verdict costs little with ten thousand.

    Its answers depend on the scores that it was shown alone, in any order of trials.
    """

    def __init__(self, sweep: SweepSpec) -> None:
        """Raises MirsweepError if a rule's pruner asks for more than it will be shown."""
        require_answers(sweep.stop)
        self._sweep = sweep
        self._board = Board()
        self._newest: Scored | None = None
        self._lowest: dict[int, list[tuple[float, int, Scored]]] = {}
        self._courses: dict[int, Course] = {}
        chain = sweep.stop.chain
        self._watches = next((rule for rule in chain if rule.rule == "divergence"), None)

    def feasibility(self, number: int, mine: Curve) -> Feasibility:
        """Judge the newest score of a trial: does it count?"""
        return feasibility(mine, self._sweep.study.guard, self._nearest(number))

    def note(self, number: int, scored: Scored, *, counts: bool) -> None:
        """Remember a score; it replaces what the trial had at its samples and beyond."""
        self._newest = scored
        self._cut(number, scored.samples)
        # Scores before training set no standard: a fresh projector may have a lower MIR.
        if counts and scored.samples > 0:
            self._board.add(number, _point(scored, self._sweep))
            best = self._lowest.setdefault(scored.samples, [])
            best.append((scored.guard.validation_loss, number, scored))
            best.sort(key=lambda entry: entry[:2])
            # Of two, one is always another trial's.
            del best[2:]

    def stepped(self, number: int, step: Step, job: JobSpec) -> Decision:
        """Judge a step between two scores: only `divergence` looks at the training loss."""
        rule = self._watches
        if rule is None:
            return Decision(verdict=Verdict.CONTINUE, reason="no rule looks at steps")
        course = self._courses.setdefault(number, Course())
        reason = course.hear(step.samples, step.loss, rule.factor)
        if reason is None or step.samples < min_samples(self._sweep.stop, job):
            return Decision(verdict=Verdict.CONTINUE, reason="the training loss has its course")
        return _stopped(number, f"diverged: {reason} at {step.samples:,} samples", self._sweep)

    def ended(self, number: int) -> None:
        """A trial says nothing more; its scores stay for the others to be compared with."""
        self._courses.pop(number, None)

    def saved(self, number: int, samples: int) -> Mark | None:
        """A trial's course at its newest checkpoint, heard of later; None where it is not known."""
        course = self._courses.get(number)
        return None if course is None else course.mark(samples)

    def resumed(
        self, number: int, samples: int, mark: Mark | None, losses: Iterable[float]
    ) -> None:
        """A trial goes on from a checkpoint: forget its scores beyond; see `Course.resumed`."""
        self._cut(number, samples + 1)
        if self._watches is not None:
            self._courses[number] = Course.resumed(samples, mark, losses)

    def _cut(self, number: int, samples: int) -> None:
        self._board.cut(number, samples)
        for at, best in self._lowest.items():
            if at >= samples:
                best[:] = [entry for entry in best if entry[1] != number]

    def decide(self, number: int, mine: Curve, job: JobSpec, compared_from: int = 0) -> Decision:
        """Judge trial `number` after its newest score, before that is noted.

        mine: all its scores, the first before training. Only feasible scores at or past
        min_samples take part, and a comparison acts only if the error bars separate. A trial at
        its full budget always goes on. Raises ProtocolError if scores do not follow one protocol.
        compared_from: samples up to which a resumed trial is left alone by rules without rungs.
        """
        stop, budget = self._sweep.stop, job.optim.steps * job.optim.global_batch
        earliest = min_samples(stop, job)
        newest = mine[-1]
        if newest.samples >= budget:
            return Decision(verdict=Verdict.CONTINUE, reason="the full budget is spent")
        if newest.samples < earliest:
            reason = f"no score takes part before {earliest:,} samples"
            return Decision(verdict=Verdict.CONTINUE, reason=reason)
        self._require_one_protocol(newest)
        counts, reasons = self._own(number, mine, earliest)
        if reasons:
            return _infeasible(number, reasons, self._sweep)
        return self._asked(self._race(number, mine, counts, job), compared_from)

    def standing(self, number: int, mine: Curve, job: JobSpec) -> Standing:
        """Ask all rules again how a paused trial stands at its newest score that counts."""
        counts, _ = self._own(number, mine, min_samples(self._sweep.stop, job))
        if not counts:
            return Standing(math.inf, "no score of it counts")
        race = self._race(number, mine, counts, job)
        found = Standing(-math.inf, "nothing to compare it with")
        for rule in self._sweep.stop.chain:
            answer = ask(race, self._board, rule)
            if isinstance(answer, Comparison):
                behind = _behind(race, answer, self._sweep)
                found = max(found, Standing(behind, _compared(race, answer, self._sweep)), key=_key)
        return found

    def _race(self, number: int, mine: Curve, counts: Sequence[Scored], job: JobSpec) -> Race:
        return Race(
            number=number,
            mine=[_point(scored, self._sweep) for scored in counts],
            rivals={},
            direction=direction(self._sweep.study.objective),
            min_samples=min_samples(self._sweep.stop, job),
            budget=job.optim.steps * job.optim.global_batch,
            slack=job.score.every_samples,
            seed=self._sweep.study.seed,
            losses=[scored.guard.validation_loss for scored in mine],
        )

    def _own(self, number: int, mine: Curve, earliest: int) -> tuple[list[Scored], list[str]]:
        """My scores that count, and why each of the newest in a row does not, oldest first."""
        counts: list[Scored] = []
        reasons: list[str] = []
        for end in range(1, len(mine) + 1):
            if mine[end - 1].samples < earliest:
                continue
            found = self.feasibility(number, mine[:end])
            if found.feasible:
                counts.append(mine[end - 1])
                reasons.clear()
            else:
                reasons.append(found.reason)
        return counts, reasons

    def _asked(self, race: Race, compared_from: int) -> Decision:
        """The first rule that stops the trial, else what all of them say."""
        said = []
        resumed = race.mine[-1].samples < compared_from
        for rule in self._sweep.stop.chain:
            answer = ask(race, self._board, rule)
            if resumed and isinstance(answer, Comparison) and rule.rule not in AT_RUNGS:
                answer = f"resumed, and not compared before {compared_from:,} samples"
            decision = _answered(race, answer, self._sweep)
            if decision.verdict is not Verdict.CONTINUE:
                return decision
            said.append(decision.reason)
        return Decision(verdict=Verdict.CONTINUE, reason="; ".join(said))

    def _nearest(self, number: int) -> list[Curve]:
        """The best feasible loss of another trial at every number of samples, as one curve."""
        if NEAR_BEST not in self._sweep.study.guard.constraints:
            return []
        others = [
            next(entry[2] for entry in best if entry[1] != number)
            for best in self._lowest.values()
            if any(entry[1] != number for entry in best)
        ]
        return [others]

    def _require_one_protocol(self, newest: Scored) -> None:
        before = self._newest
        if before is not None and before.mir["protocol"] != newest.mir["protocol"]:
            newest.report.require_comparable(before.report)


def decide(
    number: int, mine: Curve, others: Mapping[int, Curve], *, sweep: SweepSpec, job: JobSpec
) -> Decision:
    """As `Judge.decide`, from all scores of the other trials, whatever became of them."""
    judge = Judge(sweep)
    for other, curve in others.items():
        for end, scored in enumerate(curve, start=1):
            counts = feasibility(curve[:end], sweep.study.guard).feasible
            judge.note(other, scored, counts=counts)
    return judge.decide(number, mine, job)


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
    return abs(mine.value - other.value) > _margin(mine, other, confidence)


def _margin(mine: Point, other: Comparison, confidence: float) -> float:
    """How far two values must lie apart to differ beyond their errors."""
    if confidence == 0:
        return 0.0
    z = max(NormalDist().inv_cdf(confidence), 0.0)
    return z * math.hypot(mine.error, other.error)


def audited(sweep: SweepSpec, number: int) -> bool:
    """Whether the trial runs on although it would be stopped; fixed by seed and number."""
    return seed_of(sweep.study.seed, "audit", number) / 2**32 < sweep.stop.audit


def _answered(race: Race, answer: Comparison | Stop | str, sweep: SweepSpec) -> Decision:
    if isinstance(answer, str):
        return Decision(verdict=Verdict.CONTINUE, reason=answer)
    if isinstance(answer, Stop):
        return _stopped(race.number, answer.reason, sweep)
    reason = _compared(race, answer, sweep)
    mine, confidence = race.mine[-1], sweep.stop.confidence
    # The pruner is asked last: it costs more than all else here.
    if _lag(race, answer) > 0 and not separates(mine, answer, confidence):
        reason += f", not separate at confidence {confidence:g}"
        return Decision(verdict=Verdict.CONTINUE, reason=reason)
    if not answer.behind:
        return Decision(verdict=Verdict.CONTINUE, reason=reason)
    found = _stopped(race.number, reason, sweep)
    if sweep.stop.pause and found.verdict is Verdict.PRUNE:
        return Decision(verdict=Verdict.PAUSE, reason=reason)
    return found


def _compared(race: Race, answer: Comparison, sweep: SweepSpec) -> str:
    mine = race.mine[-1]
    against = answer.label.format(f"{answer.value:.2f} +/- {answer.error:.2f}")
    return (
        f"{label(sweep.study.objective)} {mine.value:.2f} +/- {mine.error:.2f} against {against} "
        f"at {mine.samples:,} samples"
    )


def _behind(race: Race, answer: Comparison, sweep: SweepSpec) -> float:
    """See `Standing`; above 0 exactly where the comparison would stop the trial."""
    behind = _lag(race, answer) - _margin(race.mine[-1], answer, sweep.stop.confidence)
    return behind if behind <= 0 or answer.behind else 0.0


def _lag(race: Race, answer: Comparison) -> float:
    """By how much the trial is worse than the figure."""
    sign = 1.0 if race.direction == "minimize" else -1.0
    return sign * (race.mine[-1].value - answer.value)


def _key(standing: Standing) -> float:
    return standing.behind


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


def _point(scored: Scored, sweep: SweepSpec) -> Point:
    objective = sweep.study.objective
    return Point(
        scored.samples, objective_value(objective, scored), objective_error(objective, scored)
    )
