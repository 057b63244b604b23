"""Optuna's own pruners, asked over points of the board: a study whose steps are samples seen.

A pruner reads a study's trials and marks rungs in its storage. Here both are a view of the points
that take part in one question: a slow database delays no stop, and the same points get the same
answer however often they are asked about.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from mir.errors import MirsweepError
from sweeps.objective import Direction
from sweeps.spec import StopSpec

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.trial import TrialState

SHOWN = 256
"""Values around its cut that a pruner is shown at least; what lies further out cannot move it."""


def median() -> BasePruner:
    """The better half of those that take part go on."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=0)


def percentile(share: float) -> BasePruner:
    """The best `share` per cent of those that take part go on."""
    from optuna.pruners import PercentilePruner

    return PercentilePruner(share, n_startup_trials=0)


def halving(min_samples: int, factor: int, bracket: int) -> BasePruner:
    """The best 1 in `factor` at each rung go on; what Optuna's Hyperband asks inside a bracket."""
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(
        min_resource=min_samples, reduction_factor=factor, min_early_stopping_rate=bracket
    )


def require_answers(stop: StopSpec) -> None:
    """Ask the pruner of every rule about made-up values, before a sweep has run for hours.

    Raises MirsweepError as `prunes` does.
    """
    for rule in stop.chain:
        if rule.rule == "median":
            pruner = median()
        elif rule.rule == "percentile":
            pruner = percentile(rule.percentile)
        elif rule.rule in ("successive-halving", "hyperband"):
            pruner = halving(1, rule.reduction_factor, 0)
        else:
            continue
        for mine in (0.0, 3.0):  # to a rung's end, and past it
            prunes(pruner, mine, View([1.0, 2.0], 1, "minimize", rung=0))


def prunes(pruner: BasePruner, mine: float, others: View) -> bool:
    """Whether the pruner stops a trial that comes to the others' step with the value `mine`.

    At a rung, it has passed those below. Raises MirsweepError if the pruner, of a later Optuna,
    asks for something that the view does not have.
    """
    from optuna import __version__
    from optuna.trial import TrialState, create_trial

    trial = create_trial(
        state=TrialState.RUNNING,
        intermediate_values={others.samples: mine},
        system_attrs={_mark(below): mine for below in range(others.rung or 0)},
    )
    try:
        return pruner.prune(cast("Study", others), trial)
    except (AttributeError, KeyError, TypeError) as lacking:
        raise MirsweepError(
            f"stop: {type(pruner).__name__} of Optuna {__version__} asks for more than it is shown "
            f"({lacking}): install a version that passes tests/sweeps/test_pruners.py"
        ) from lacking


def near_quantile(values: Sequence[float], percent: float) -> Sequence[float]:
    """Some of the rising values, with the same interpolated quantile.

    It stands at place q (n - 1). Without q k below and (1 - q) k above, that is q k places less.
    """
    share = Fraction(str(percent)) / 100
    return _around(values, share.numerator, share.denominator - share.numerator)


def near_rung(values: Sequence[float], factor: int, direction: Direction) -> Sequence[float]:
    """Some of the rising values, with the same last of the best 1 in `factor`, one more added.

    Without k of the best and (factor - 1) k of the worst, that one stands k places nearer.
    """
    worse = factor - 1
    return _around(values, *((1, worse) if direction == "minimize" else (worse, 1)))


def _around(values: Sequence[float], below: int, above: int) -> Sequence[float]:
    """Without so many parts of `below` and `above` that at least `SHOWN` values are left."""
    step = below + above
    times = max(len(values) - max(SHOWN, 2 * step), 0) // step
    return values[times * below : len(values) - times * above]


class View:
    """A study, and its storage, for one question: the others' values, all at one step.

    samples: the step. rung: how many rungs lie below it, None where it is none.
    """

    def __init__(
        self,
        others: Sequence[float],
        samples: int,
        direction: Direction,
        rung: int | None = None,
    ) -> None:
        from optuna.study import StudyDirection

        self.samples = samples
        self.rung = rung
        self.direction = StudyDirection[direction.upper()]
        self._others = others
        self._storage = self

    def get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> _Trials:
        """Those that take part count as complete, whatever became of them."""
        from optuna.trial import TrialState

        complete = states is None or TrialState.COMPLETE in states
        return _Trials(self._others if complete else (), self.samples, self.rung)

    def set_trial_system_attr(self, trial_id: int, key: str, value: float) -> None:
        """The trial asked about has come to a rung: no later question needs to know."""


class _Trials:
    """Trials that are there while they are read, one after the other.

    Ten thousand of them at every score would cost more to make, or to keep, than all else that a
    score costs: they are one object, which has the values of the next one each time.
    """

    def __init__(self, others: Sequence[float], samples: int, rung: int | None) -> None:
        self._others, self._samples, self._rung = others, samples, rung

    def __len__(self) -> int:
        return len(self._others)

    def __iter__(self) -> Iterator[_Trial]:
        trial, samples = _Trial(), self._samples
        values, marks = trial.intermediate_values, trial.system_attrs
        if self._rung is None:
            for value in self._others:
                values[samples] = value
                yield trial
        else:
            mark = _mark(self._rung)
            for value in self._others:
                values[samples] = marks[mark] = value
                yield trial
        # Whoever has kept any of it would take the last one's values for everyone's.
        values.clear()
        marks.clear()
        del trial.intermediate_values, trial.system_attrs


class _Trial:
    __slots__ = ("intermediate_values", "system_attrs")

    def __init__(self) -> None:
        self.intermediate_values: dict[int, float] = {}
        self.system_attrs: dict[str, float] = {}


def _mark(rung: int) -> str:
    """By this attribute Optuna's halving knows who has come to a rung; the first is number 0."""
    return f"completed_rung_{rung}"
