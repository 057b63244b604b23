"""How much of the ranking by MIR each setting explains by itself, and how much noise would.

MIRs are compared at equal samples: as far into the run as enough trials came with a score that
counts (all the way, where few were stopped). For each setting, the ranks of the MIR are fitted:
by a parabola in the ranks of a number (a learning rate is best in the middle), by the means of
the groups of a choice. The importance is the adjusted R^2 of that fit, so a setting that explains
nothing has 0 on average. The noise level is the 95 % quantile of the same figure after shuffling
the MIRs. Shares do not add up to 1: settings act together, and mixture weights depend on each
other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.report.series import Panel, counted_at, panels
from orchestrator.state import SweepView
from orchestrator.views.text import MIXTURE

MIN_TRIALS = 8
_SHUFFLES, _SEED, _QUANTILE = 400, 0, 0.95
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Importance:
    """share: adjusted R^2, at least 0. noise: what 95 of 100 settings without effect stay below.

    trials: number of trials that had the setting and count.
    """

    name: str
    share: float
    noise: float
    trials: int

    @property
    def clear(self) -> bool:
        """Whether the setting explains more than noise would."""
        return self.share > self.noise


def common_samples(view: SweepView) -> int | None:
    """The most samples at which MIN_TRIALS trials have a score that counts; None if nowhere."""
    enough = [at for at, trials in _counted(view).items() if trials >= MIN_TRIALS]
    return max(enough, default=None)


def most_counted(view: SweepView) -> int:
    """The most trials that have a score that counts at equal samples."""
    return max(_counted(view).values(), default=0)


def _counted(view: SweepView) -> dict[int, int]:
    """Number of trials with a score that counts, by samples; before training nothing differs."""
    places = {scored.samples for trial in view.trials.values() for scored in trial.scores}
    return {at: len(counted_at(view, at)) for at in places if at}


def importances(view: SweepView) -> list[Importance]:
    """Most important first, by the MIRs at `common_samples`.

    Settings seen in fewer than MIN_TRIALS trials are left out.
    """
    samples = common_samples(view)
    if samples is None:
        return []
    mirs = counted_at(view, samples)
    mixture = [(f"{MIXTURE}{panel.name}", panel) for panel in panels(view, mixture=True, mirs=mirs)]
    others = [(panel.name, panel) for panel in panels(view, mixture=False, mirs=mirs)]
    found = [
        importance(name, panel)
        for name, panel in [*others, *mixture]
        if len(panel.trials) >= MIN_TRIALS
    ]
    return sorted(found, key=lambda item: -item.share)


def importance(name: str, panel: Panel) -> Importance:
    """The importance of one setting from its values and the MIRs."""
    y = _ranks(np.asarray(panel.mir))
    y -= y.mean()
    basis = _basis(panel)
    rng = np.random.default_rng(_SEED)
    shuffled = np.stack([rng.permutation(y) for _ in range(_SHUFFLES)], axis=1)
    share = _adjusted_r2(basis, y[:, None])[0]
    noise = float(np.quantile(_adjusted_r2(basis, shuffled), _QUANTILE))
    return Importance(name=name, share=max(0.0, float(share)), noise=max(0.0, noise), trials=len(y))


def _basis(panel: Panel) -> Array:
    """Orthonormal columns that span the fit without its constant, [n, terms]."""
    if any(isinstance(value, str) for value in panel.x):
        kinds = sorted({str(value) for value in panel.x})
        columns = np.array([[float(str(v) == kind) for kind in kinds[1:]] for v in panel.x])
    else:
        ranks = _ranks(np.array([float(value) for value in panel.x]))
        powers = [ranks, ranks**2] if len(set(panel.x)) > 2 else [ranks]
        columns = np.stack(powers, axis=1)
    columns = columns - columns.mean(axis=0)
    q, _ = np.linalg.qr(columns)
    return np.asarray(q, dtype=np.float64)


def _adjusted_r2(basis: Array, y: Array) -> Array:
    """Adjusted R^2 of each column of centred y, [columns]; 0 where y does not vary."""
    n, terms = basis.shape
    total = (y**2).sum(axis=0)
    explained = ((basis.T @ y) ** 2).sum(axis=0)
    r2 = np.divide(explained, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(1 - (1 - r2) * (n - 1) / max(1, n - 1 - terms), dtype=np.float64)


def _ranks(values: Array) -> Array:
    """Ranks from 0, ties share their mean, scaled to [0, 1]."""
    order = np.sort(values)
    low = np.searchsorted(order, values, side="left")
    high = np.searchsorted(order, values, side="right") - 1
    return np.asarray((low + high) / 2 / max(1, len(values) - 1), dtype=np.float64)
