"""Optuna's samplers by the recipe's names; optuna is imported only when one is made.

A sampler is made anew for every draw, seeded with the study's seed, the trial's number and the
parameter's name. What is drawn thus depends on these and on what was told before, never on how
long the process has lived or how many trials it has asked for.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sweeps.spec import StudySpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def seed_of(*parts: object) -> int:
    """A 32-bit seed that depends on all parts."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def make_sampler(spec: StudySpec, number: int, parameter: str = "") -> BaseSampler:
    """The recipe's sampler for one draw. Raises ConfigError if its package is not installed."""
    return SAMPLERS[spec.sampler](spec, seed_of(spec.seed, number, parameter))


def _tpe(spec: StudySpec, seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(n_startup_trials=spec.startup_trials, seed=seed)


def _random(_spec: StudySpec, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _qmc(spec: StudySpec, seed: int) -> BaseSampler:
    """Sobol points. A kill in the middle of one draw leaves one point of the sequence out."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import QMCSampler, RandomSampler

    with warnings.catch_warnings():
        # Experimental to Optuna since 3.0 in its interface, which only this line uses.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return QMCSampler(
            scramble=True,
            seed=spec.seed,  # one sequence for the whole study; its position is in the storage
            independent_sampler=RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )


def _gp(spec: StudySpec, seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(
        n_startup_trials=spec.startup_trials, seed=seed, warn_independent_sampling=False
    )


SAMPLERS: Mapping[str, Callable[[StudySpec, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
    "qmc": _qmc,
    "gp": _gp,
}
