"""What the figures draw, as plain numbers; the page and the pictures share it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.standing import best_trial, counts
from orchestrator.views.text import MIXTURE

Group = Literal["best", "complete", "stopped", "failed", "open"]
_GROUPS: dict[TrialState, Group] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAILED: "failed",
}

_WIDE = 30.0
# Trials that ran off upwards leave the picture where they would squeeze the others into less
# than this share of its height.
_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One trial's MIR against samples seen; None where the score is not finite.

    counted: whether each score was feasible.
    """

    trial: int
    group: Group
    samples: tuple[int, ...]
    mir: tuple[float | None, ...]
    error: tuple[float, ...]
    counted: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One setting against the MIR of the trials that count.

    share: whether x is a mixture weight. log: whether x spans more than a factor of ten.
    """

    name: str
    trials: tuple[int, ...]
    x: tuple[float | str, ...]
    mir: tuple[float, ...]
    share: bool
    log: bool


def curves(view: SweepView) -> list[Curve]:
    """All trials with a score, the best last, so that it is drawn on top."""
    best = best_trial(view)
    made = [_curve(trial, trial is best) for trial in view.trials.values() if trial.scores]
    return sorted(made, key=lambda curve: (curve.group == "best", curve.trial))


def _curve(trial: TrialView, best: bool) -> Curve:
    mirs = [float(scored.mir["mir"]) for scored in trial.scores]
    errors = [scored.mir["standard_error"] or 0.0 for scored in trial.scores]
    missing = len(mirs) - len(trial.counted)
    return Curve(
        trial=trial.number,
        group="best" if best else _GROUPS.get(trial.state, "open"),
        samples=tuple(scored.samples for scored in trial.scores),
        mir=tuple(mir if math.isfinite(mir) else None for mir in mirs),
        error=tuple(error if math.isfinite(error) else 0.0 for error in errors),
        counted=(*trial.counted, *[True] * missing),
    )


@dataclass(frozen=True, kw_only=True)
class Window:
    """The range of MIR that is drawn, and the trials that leave it upwards."""

    low: float
    high: float
    beyond: tuple[int, ...]


def window(every: Sequence[Curve]) -> Window | None:
    """What to draw where few trials ran off far above all that ran to the end; None for all."""
    kept = [m for c in every if c.group in ("best", "complete") for m in c.mir if m is not None]
    drawn = [m for curve in every for m in curve.mir if m is not None]
    if not kept or max(drawn) - min(drawn) <= (max(kept) - min(drawn)) / _SHARE:
        return None
    low, high = min(drawn), max(kept)
    margin = 0.08 * (high - low)
    top = high + 4 * margin
    beyond = tuple(
        c.trial for c in every if max((m for m in c.mir if m is not None), default=0) > top
    )
    return Window(low=low - margin, high=top, beyond=tuple(sorted(beyond)))


def beyond_note(every: Sequence[Curve]) -> str:
    """Which trials leave the picture, in words; empty where none does."""
    found = window(every)
    if found is None or not found.beyond:
        return ""
    trials = ", ".join(str(number) for number in found.beyond)
    word = "Trial" if len(found.beyond) == 1 else "Trials"
    return f"{word} {trials} ran off above {found.high:.2f}."


def counting(view: SweepView) -> list[TrialView]:
    """Trials that ended with a score that may win, by number."""
    return [view.trials[number] for number in sorted(view.trials) if counts(view.trials[number])]


def final_mir(trial: TrialView) -> float:
    """The last MIR of a trial that has one."""
    return float(trial.scores[-1].mir["mir"])


def counted_at(view: SweepView, samples: int) -> dict[int, float]:
    """MIR at exactly `samples` of every trial, by number, whose score there counts."""
    return {
        number: float(scored.mir["mir"])
        for number, trial in sorted(view.trials.items())
        for scored, counts_here in zip(trial.scores, trial.counted, strict=False)
        if scored.samples == samples and counts_here and math.isfinite(scored.mir["mir"])
    }


def panels(
    view: SweepView, *, mixture: bool, mirs: Mapping[int, float] | None = None
) -> list[Panel]:
    """One panel a source of the mixture, or one for each other setting, in order of the recipe.

    mirs: the MIR of each trial to show, None for the last of those that ended and count.
    Settings with one value only have nothing to show and are left out.
    """
    if mirs is None:
        mirs = {trial.number: final_mir(trial) for trial in counting(view)}
    trials = [view.trials[number] for number in mirs]
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    chosen = [name for name in names if name.startswith(MIXTURE) == mixture]
    made = []
    for name in chosen:
        having = [trial for trial in trials if name in trial.params]
        x = tuple(trial.params[name] for trial in having)
        if len(set(x)) < 2:
            continue
        made.append(
            Panel(
                name=name.removeprefix(MIXTURE),
                trials=tuple(trial.number for trial in having),
                x=x if _numeric(x) else tuple(str(value) for value in x),
                mir=tuple(mirs[trial.number] for trial in having),
                share=mixture,
                log=not mixture and _numeric(x) and _spans_decades(x),
            )
        )
    return made


def wide_layers(best: TrialView) -> bool:
    """Whether the layers' distances before and after differ so much that they need a log axis.

    A log axis that spans less than a decade or two has hardly a tick to read.
    """
    rows = [row for scored in (best.scores[0], best.scores[-1]) for row in scored.mir["layers"]]
    found = [row["distance"] for row in rows if math.isfinite(row["distance"])]
    return bool(found) and min(found) > 0 and max(found) / min(found) > _WIDE


def _numeric(values: Sequence[float | int | str]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _spans_decades(values: Sequence[float | int | str]) -> bool:
    numbers = [float(value) for value in values]
    return min(numbers) > 0 and max(numbers) / min(numbers) > 10
