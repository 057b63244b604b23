"""What a sweep cost, what stopping saved and may have lost: a pure function of its state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from orchestrator.budget import devices, seconds_used, unit
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.standing import best_trial, counts, objective_of
from orchestrator.views.text import number, percent
from sweeps.decision import Verdict
from sweeps.objective import objective_error

ENOUGH = 3  # complete trials without which nothing is said about the course of others


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All in device-hours of `unit`: GPU-hours, or core-hours of jobs without GPUs.

    used: by all attempts so far. saved: what the trials that a rule stopped would have taken,
    those that are paused at the moment included; what is resumed is no longer saved.
    wasted: by failed trials, and to do again what a failure had undone. scoring: part of `used`.
    wrong: expected number of stopped trials that would have become the best, by how much the
    complete ones still gained after the same samples; None where too few are complete.
    audited, mistaken: trials that were to be stopped but ran to the end, and those of them
    that beat every other. cost: in the currency of the price, None without one.
    """

    unit: str
    used: float
    saved: float
    wasted: float
    scoring: float
    stopped: int
    paused: int
    wrong: float | None
    audited: int
    mistaken: int
    cost: float | None

    def lines(self) -> list[tuple[str, str]]:
        """Name and text of each line that a person should see."""
        share = percent(self.scoring / self.used) if self.used > 0 else "-"
        found = [
            ("used", f"{number(self.used)} {self.unit}, {share} of it for scoring"),
            ("saved", f"{number(self.saved)} {self.unit} by stopping {self._stopped} early"),
        ]
        if self.wasted > 0:
            found.append(("wasted", f"{number(self.wasted)} {self.unit} by failures"))
        if self.stopped and self.wrong is not None:
            text = f"{self.wrong:.2f} of {self.stopped} expected to have become the best"
            found.append(("stopped wrongly", text))
        if self.audited:
            text = f"{self.mistaken} of {self.audited} that ran on became the best"
            found.append(("audited", text))
        if self.cost is not None:
            found.append(("cost", f"{self.cost:,.2f}"))
        return found

    @property
    def _stopped(self) -> str:
        return f"{self.stopped} (paused: {self.paused})" if self.paused else str(self.stopped)


def ledger(view: SweepView, now: float) -> Ledger:
    """The ledger as of `now`, seconds since the epoch; trials that run count up to then."""
    trials = [trial.whole() for _, trial in sorted(view.trials.items())]
    resources = view.spec.resources

    def hours(trial: TrialView, seconds: float) -> float:
        return seconds * devices(resources, trial.workers) / 3600

    by_rule = (Verdict.PRUNE, Verdict.PAUSE)
    frozen = [t for t in trials if t.frozen]
    stopped = [t for t in trials if t.state is TrialState.PRUNED and t.verdict in by_rule]
    stopped += frozen
    audited = [t for t in trials if t.verdict is Verdict.AUDIT and t.state is TrialState.COMPLETE]
    best = best_trial(view)
    used = seconds_used(view, trials, now) * devices(resources) / 3600
    price = resources.price_per_hour
    return Ledger(
        unit=unit(resources),
        used=used,
        saved=sum(hours(trial, _rest(trial)) for trial in stopped),
        wasted=sum(hours(trial, _wasted(trial)) for trial in trials),
        scoring=sum(hours(trial, score.seconds) for trial in trials for score in trial.scores),
        stopped=len(stopped),
        paused=len(frozen),
        wrong=_expected_wrong(view, stopped, trials),
        audited=len(audited),
        mistaken=sum(best is not None and best.number == trial.number for trial in audited),
        cost=None if price is None else used * price,
    )


def _pace(trial: TrialView) -> float:
    """Seconds a sample; 0 before the first."""
    done = trial.samples + trial.redone
    return trial.seconds / done if done else 0.0


def _rest(trial: TrialView) -> float:
    return max(0, trial.budget - trial.samples) * _pace(trial)


def _wasted(trial: TrialView) -> float:
    return trial.seconds if trial.state is TrialState.FAILED else trial.redone * _pace(trial)


def _expected_wrong(
    view: SweepView, stopped: Sequence[TrialView], trials: Sequence[TrialView]
) -> float | None:
    spec = view.spec
    complete = [trial for trial in trials if counts(trial)]
    if len(complete) < ENOUGH:
        return None
    best = min(objective_of(spec, trial.scores[-1]) for trial in complete)
    total = 0.0
    for trial in stopped:
        if not trial.feasible:
            continue
        last = trial.scores[-1]
        gains = [
            objective_of(spec, t.scores[-1]) - objective_of(spec, score)
            for t in complete
            for score in t.scores
            if score.samples == last.samples
        ]
        if len(gains) >= ENOUGH:
            error = objective_error(spec.study.objective, last)
            spread = math.hypot(stdev(gains), error) or 1e-12
            expected = objective_of(spec, last) + fmean(gains)
            total += NormalDist(expected, spread).cdf(best)
    return total
