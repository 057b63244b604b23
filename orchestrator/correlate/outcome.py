"""The outcome as a value: every trial's readings and score, the correlations, the sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from mir.errors import ConfigError
from orchestrator.correlate.readings import MIR, readings
from orchestrator.correlate.results import Result
from orchestrator.state import TrialView
from orchestrator.views.standing import counts
from sweeps.correlation import Correlation, correlations
from sweeps.trust import ENOUGH, Finding, judge

# At this ratio half of the scores' variance is sampling noise.
_CLEAR = 2**0.5


@dataclass(frozen=True, kw_only=True)
class Point:
    """One trial: its last readings and its downstream score. counted: whether its score may win."""

    trial: int
    params: dict[str, float | int | str]
    mir: float
    mir_error: float | None
    score: float
    score_error: float | None
    counted: bool
    downstream: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Within:
    """The last readings among the trials that share one choice, e.g. moca: off."""

    setting: str
    choice: str
    found: tuple[Correlation, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """found: over all points. counted: over the points whose score may win, where they are enough.

    within: by choice of each setting that has some, where its trials are enough. A setting may move
    a reading and not the score; then the reading ranks better within one choice than over all.
    recipe_folder: where the results of this recipe are kept.
    """

    study: str
    measure: str
    recipe_folder: str
    points: tuple[Point, ...]
    found: tuple[Correlation, ...]
    finding: Finding
    counted: tuple[Correlation, ...]
    counted_finding: Finding | None
    within: tuple[Within, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict; among the trials that count too, where not all of them do."""
        parts = [self.finding.sentence]
        if self.counted_finding is not None:
            count = sum(point.counted for point in self.points)
            said = self.counted_finding.sentence
            lower = said if said.startswith("MIR") else said[0].lower() + said[1:]
            parts.append(f"Among the {count} trials whose scores count: {lower}")
        return " ".join([*parts, self.caution] if self.caution else parts)

    @property
    def caution(self) -> str:
        """A warning where the downstream score hardly tells the trials apart; empty otherwise.

        Then no reading can rank them as it does, and a low correlation says nothing of MIR.
        """
        errors = [p.score_error for p in self.points if p.score_error is not None]
        if len(self.points) < ENOUGH or len(errors) < len(self.points):
            return ""
        spread = stdev(point.score for point in self.points)
        noise = fmean(error**2 for error in errors) ** 0.5
        if spread > _CLEAR * noise:
            return ""
        return (
            f"Beware: {self.measure} hardly tells these trials apart. They differ by {spread:.3f} "
            f"(standard deviation), and each is known to {noise:.3f}; fine-tune longer, or ask "
            "more questions."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {**asdict(self), "sentence": self.sentence}


def outcome(
    study: str,
    measure: str,
    folder: str,
    trials: Sequence[TrialView],
    results: Mapping[int, Result],
) -> Outcome:
    """Put trials and their results together. Raises ConfigError for an unknown measure."""
    ready = [trial for trial in trials if trial.number in results]
    for trial in ready:
        known = results[trial.number].evaluated.values
        if measure not in known:
            raise ConfigError(
                f"--measure: {measure!r} was not measured. Known: {', '.join(sorted(known))}"
            )
    points = tuple(_point(trial, results[trial.number], measure) for trial in ready)
    found = _over(ready, points, measure)
    sure = [trial for trial, point in zip(ready, points, strict=True) if point.counted]
    apart = ENOUGH <= len(sure) < len(ready)
    among = _over(sure, [p for p in points if p.counted], measure) if apart else ()
    return Outcome(
        study=study,
        measure=measure,
        recipe_folder=folder,
        points=points,
        found=found,
        finding=judge(found, measure),
        counted=among,
        counted_finding=judge(among, measure) if apart else None,
        within=tuple(_within(ready, points, measure)),
    )


def _within(trials: Sequence[TrialView], points: Sequence[Point], measure: str) -> Iterator[Within]:
    groups: dict[tuple[str, str], list[int]] = {}
    for place, point in enumerate(points):
        for setting, choice in point.params.items():
            if isinstance(choice, str):
                groups.setdefault((setting, choice), []).append(place)
    for (setting, choice), members in sorted(groups.items()):
        if ENOUGH <= len(members) < len(points):
            found = _over([trials[n] for n in members], [points[n] for n in members], measure)
            last = max(one.fraction for one in found)
            kept = tuple(one for one in found if one.fraction == last)
            yield Within(setting=setting, choice=choice, found=kept)


def _over(
    trials: Sequence[TrialView], points: Sequence[Point], measure: str
) -> tuple[Correlation, ...]:
    sign = -1.0 if lower_is_better(measure) else 1.0
    return tuple(correlations(readings(trials), [sign * p.score for p in points], against=MIR))


def lower_is_better(measure: str) -> bool:
    """Whether a downstream measure is a loss; all others are shares and gaps."""
    return measure.split("@")[0].endswith("loss") and not measure.startswith("wrong")


def _point(trial: TrialView, result: Result, measure: str) -> Point:
    last = trial.scores[-1].mir
    return Point(
        trial=trial.number,
        params=dict(trial.params),
        mir=last["mir"],
        mir_error=last["standard_error"],
        score=result.evaluated.values[measure],
        score_error=result.evaluated.errors.get(measure),
        counted=counts(trial),
        downstream=dict(result.evaluated.values),
    )
