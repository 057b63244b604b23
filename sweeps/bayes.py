"""The `gp` sampler: Bayesian optimisation that knows error bars, constraints and mixtures.

Each trial is proposed where a Gaussian process expects the largest improvement of the objective
times the probability that every constraint is met. Distances are those of `Space.coordinates`, so
a mixture counts by its weights; every value comes with its standard error; values of stopped
trials count too; trials that still run are believed to come out as predicted, which keeps
concurrent proposals apart. For 5 to some hundred trials; it looks at no more than `MOST`.

Sources: expected improvement, Jones et al. 1998, computed in logarithms as Ament et al. 2023
advise; probability of feasibility, Gardner et al. 2014; believer, Ginsbourger et al. 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import log_ndtr

from sweeps.cube import Cube
from sweeps.gaussian import Array, Gaussian, fit
from sweeps.told import Told

MOST = 256
_SPREAD, _NEAR = 1000, 100  # candidates anywhere, and around each of the best points
_STEPS = ((0.2, 0.07), (0.1, 0.03, 0.01))  # widths of the steps away from good points
_MOVED = 0.6  # share of the numbers of a point that one step changes


def propose(cube: Cube, told: Sequence[Told], rng: np.random.Generator) -> list[float]:
    """A point of the cube; needs at least two trials with values or violations."""
    ended = _most_telling([t for t in told if t.ended])
    places = _places(cube, [cube.units(t.raw) for t in ended])
    running = [cube.units(t.raw) for t in told if t.state == "open"]
    pending = _places(cube, running) if running else np.empty((0, places.shape[1]))
    merit = _merit(ended, places, pending)
    good = sorted((t for t in ended if t.values), key=_rank)[:3] or ended[:3]
    return _search(cube, merit, np.array([cube.units(t.raw) for t in good]), rng)


def _rank(told: Told) -> tuple[bool, float]:
    return (not told.feasible, told.values[0])


def _most_telling(ended: Sequence[Told]) -> list[Told]:
    """The best half and the newest, where there are too many to invert a matrix for."""
    if len(ended) <= MOST:
        return list(ended)
    best = sorted((t for t in ended if t.values), key=_rank)[: MOST // 2]
    chosen = {t.number for t in best}
    newest = [t for t in ended if t.number not in chosen][-(MOST - len(best)) :]
    return sorted([*best, *newest], key=lambda t: t.number)


def _places(cube: Cube, points: Sequence[Sequence[float]]) -> Array:
    return np.array([cube.space.coordinates(cube.raw(point)) for point in points])


def _merit(ended: Sequence[Told], places: Array, pending: Array) -> Callable[[Array], Array]:
    """The logarithm of expected improvement times probability of feasibility."""
    barriers = _barriers(ended, places)
    known = [i for i, t in enumerate(ended) if t.values]
    feasible = [i for i in known if ended[i].feasible]
    if not feasible:
        return lambda asked: _log_feasible(barriers, asked)
    values = _capped(np.array([ended[i].values[0] for i in known], float), ended, known)
    errors = np.array([ended[i].errors[0] for i in known])
    model = fit(places[known], values, errors)
    # Measured values are noisy: the best prediction at a feasible trial is what must be beaten.
    target = float(model.predict(places[feasible])[0].min())
    believer = model.believing(pending)

    def merit(asked: Array) -> Array:
        mean, deviation = believer.predict(asked)
        return _log_improvement(target, mean, deviation) + _log_feasible(barriers, asked)

    return merit


def _capped(values: Array, ended: Sequence[Told], known: Sequence[int]) -> Array:
    """Very bad values brought nearer: how bad a bad place is does not help to find a good one."""
    good = values[[ended[i].feasible for i in known]]
    middle, best = float(np.median(values)), float(good.min())
    return np.minimum(values, middle + 2 * max(middle - best, 1e-9))


def _barriers(ended: Sequence[Told], places: Array) -> list[Gaussian]:
    """A model of each constraint that was ever broken, in units of its typical size."""
    names = dict.fromkeys(name for t in ended for name, v in t.violations.items() if v > 0)
    models = []
    for name in names:
        here = [i for i, t in enumerate(ended) if name in t.violations]
        found = np.array([ended[i].violations[name] for i in here])
        size = float(np.median(np.abs(found))) or float(np.abs(found).mean())
        models.append(fit(places[here], np.clip(found / size, -3, 3), np.zeros(len(here))))
    return models


def _log_feasible(barriers: Sequence[Gaussian], asked: Array) -> Array:
    total = np.zeros(len(asked))
    for model in barriers:
        mean, deviation = model.predict(asked)
        total += log_ndtr(-mean / deviation)
    return total


def _log_improvement(target: float, mean: Array, deviation: Array) -> Array:
    """log E[max(target - value, 0)]; far below the target by its asymptote, which stays finite."""
    z = (target - mean) / deviation
    density = -0.5 * z * z - 0.5 * np.log(2 * np.pi)
    near = np.log(np.maximum(np.exp(density) + z * np.exp(log_ndtr(z)), 1e-300))
    far = density - 2 * np.log(np.maximum(-z, 1.0))
    return np.asarray(np.log(deviation) + np.where(z > -6, near, far))


def _search(
    cube: Cube, merit: Callable[[Array], Array], good: Array, rng: np.random.Generator
) -> list[float]:
    """The best of many candidates, refined by ever smaller steps around the best of them."""
    wide, narrow = _STEPS
    points = [rng.random((_SPREAD, cube.dimensions))]
    points += [_around(good, _NEAR, width, rng) for width in wide]
    candidates = np.vstack(points)
    scores = merit(_places(cube, candidates.tolist()))
    for width in narrow:
        top = candidates[np.argsort(-scores, kind="stable")[:5]]
        candidates = np.vstack([top, _around(top, 40, width, rng)])
        scores = merit(_places(cube, candidates.tolist()))
    return [float(unit) for unit in candidates[int(np.argmax(scores))]]


def _around(points: Array, count: int, width: float, rng: np.random.Generator) -> Array:
    repeated = np.repeat(points, count, axis=0)
    moved = rng.random(repeated.shape) < _MOVED
    return np.clip(repeated + moved * rng.normal(0, width, repeated.shape), 0, 1)
