"""What the report says in words: the verdict, what stopping saved, who agrees with MIR."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.report.series import counting
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.standing import NAMES, best_trial, finished
from orchestrator.views.text import MIXTURE, duration, percent, plus_minus, setting, weights
from sweeps.rank import Agreement, rank_agreement

MIN_RANKED, CHANCE = 5, 0.05


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure of the page's head: a value and what it counts."""

    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Witness:
    """How one other measure ranks the trials, against MIR.

    favourite: the trial that this measure would have chosen.
    """

    name: str
    favourite: int | None
    sentence: str


def verdict(view: SweepView) -> str:
    """The page's headline sentence."""
    best = best_trial(view)
    if best is None:
        return _no_verdict(view)
    before, after = best.scores[0].mir, best.scores[-1].mir
    now = plus_minus(after["mir"], after["standard_error"])
    judged = "" if view.spec.study.objective == "mir" else f" by {NAMES[view.spec.study.objective]}"
    so_far = " so far" if any(not trial.state.final for trial in view.trials.values()) else ""
    return (
        f"Trial {best.number} is best{so_far}{judged}: MIR {before['mir']:.2f} → {now} "
        f"after {best.samples:,} samples, with {in_words(best)}."
    )


def _no_verdict(view: SweepView) -> str:
    if not view.trials:
        return "No trial has been started yet."
    if any(not trial.state.final for trial in view.trials.values()):
        return "No trial has finished with a score that counts yet."
    return "No trial finished with a score that counts, so there is no best one."


def in_words(trial: TrialView) -> str:
    """Settings as a phrase: 'learning_rate 3e-3, moca on, and most weight on detailed (61 %)'."""
    parts = [
        f"{name} {setting(value)}"
        for name, value in trial.params.items()
        if not name.startswith(MIXTURE)
    ]
    mixed = weights(trial.params)
    if mixed:
        source, share = next(iter(mixed.items()))
        parts.append(f"most weight on {source} ({percent(share)})")
    if not parts:
        return "the recipe's own settings"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def tiles(view: SweepView) -> list[Tile]:
    """The four figures under the headline."""
    trials = list(view.trials.values())
    full = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    away = [trial for trial in full if trial.feasible is False]
    stopped = [trial for trial in trials if trial.state is TrialState.PRUNED]
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    extra = f", {len(away)} of them not counting" if away else ""
    return [
        Tile(value=f"{len(finished(view))} of {view.spec.budget.trials}", text="trials finished"),
        Tile(value=str(len(full)), text=f"ran to the end{extra}"),
        Tile(value=str(len(stopped)), text=f"stopped early, {len(failed)} failed"),
        Tile(value=percent(saved(view)), text="of the samples saved by stopping"),
        Tile(value=duration(view.elapsed), text="running time"),
    ]


def saved(view: SweepView) -> float:
    """Share of the finished trials' full budgets that stopping early did not spend."""
    done = finished(view)
    full = sum(trial.budget for trial in done)
    stopped = [trial for trial in done if trial.state is TrialState.PRUNED]
    return sum(max(0, t.budget - t.samples) for t in stopped) / full if full else 0.0


def witnesses(view: SweepView) -> list[Witness]:
    """Validation loss and gap, each with what its ranking of the trials says about MIR's."""
    trials = counting(view)
    ranks = rank_agreement([trial.scores[-1] for trial in trials])
    chosen = {"validation loss": _by_loss, "gap": _by_gap}
    return [
        Witness(
            name=agreement.name,
            favourite=min(trials, key=chosen[agreement.name]).number if trials else None,
            sentence=_sentence(agreement),
        )
        for agreement in ranks.agreements
    ]


def _by_loss(trial: TrialView) -> float:
    return trial.scores[-1].guard.validation_loss


def _by_gap(trial: TrialView) -> float:
    return -trial.scores[-1].guard.gap


def _sentence(measure: Agreement) -> str:
    """Says 'agrees' or 'contradicts' only where chance alone would rarely rank so."""
    name, n, rho = measure.name, measure.n, measure.rho
    if n < MIN_RANKED:
        return f"Too few trials count ({n}) to say whether the {name} agrees with MIR."
    if rho is None or measure.p is None:
        return f"MIR or the {name} hardly varies over the {n} trials, so no ranking is compared."
    figure = f"Spearman {rho:+.2f} over {n} trials, {_chance(measure.p)}"
    if measure.p > CHANCE:
        return f"MIR and the {name} neither clearly agree nor clearly disagree ({figure})."
    if measure.agrees:
        return f"MIR agrees with the {name}: both rank the trials alike ({figure})."
    return (
        f"MIR contradicts the {name}: trials that MIR prefers are worse by it ({figure}). "
        "Do not choose by MIR alone here."
    )


def _chance(p: float) -> str:
    # With hard spaces: a line never ends between the sign and the figure.
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}"


def favourites(view: SweepView) -> list[str]:
    """Which trial each other measure would have chosen, where it is not the best one."""
    best = best_trial(view)
    choices: dict[int, list[str]] = {}
    for witness in witnesses(view):
        if best is not None and witness.favourite not in (None, best.number):
            choices.setdefault(witness.favourite, []).append(f"the {witness.name}")
    return [
        f"Judged by {' or '.join(names)} alone, trial {number} would have won."
        for number, names in choices.items()
    ]


def caution(view: SweepView) -> str:
    """A plain warning where no trial that counts ended with a lower MIR than it began with."""
    trials = [trial for trial in counting(view) if len(trial.scores) > 1]
    if not trials or any(t.scores[-1].mir["mir"] < t.scores[0].mir["mir"] for t in trials):
        return ""
    return (
        "MIR did not fall in any trial that counts: by MIR, the untrained projector is better "
        "than every trained one. Judge these trials by the validation loss and the gap."
    )
