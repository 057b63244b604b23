"""Optuna's own samplers, asked in a study in memory that holds what was told and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from sweeps.axes import Value
from sweeps.cube import Cube, Parameter
from sweeps.seeds import seed_of
from sweeps.spec import StudySpec
from sweeps.told import Told

_CANDIDATES = 128  # measured against Optuna's 24: infra/benchmarks/samplers.md


def tpe(spec: StudySpec, seed: int) -> BaseSampler:
    """Tree-structured Parzen estimator; trials that still run are taken to come out badly."""
    return TPESampler(n_startup_trials=spec.startup_trials, n_ei_candidates=_CANDIDATES, seed=seed)


class OptunaSampler:
    """A `Sampler` that asks one of Optuna's, made anew for every proposal."""

    def __init__(
        self, cube: Cube, spec: StudySpec, make: Callable[[StudySpec, int], BaseSampler]
    ) -> None:
        self._cube, self._spec, self._make = cube, spec, make
        self._distributions = {n: _distribution(p) for n, p in cube.parameters.items()}
        self._begin()

    def _begin(self) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage)
        self._told: list[Told] = []

    def propose(self, number: int, told: Sequence[Told]) -> dict[str, Value]:
        """What Optuna's sampler suggests; values of branches not taken lie in the middle."""
        self._bring_up(told)
        self._study.sampler = self._make(self._spec, seed_of(self._spec.seed, number))
        trial = self._study.ask()
        drawn = self._cube.space.draw(trial)
        # The trial belongs to the next call, which is told what became of the proposal.
        self._told.append(Told(number=number, raw=drawn, state="open"))
        return self._cube.values(self._cube.units(drawn)) | drawn

    def _bring_up(self, told: Sequence[Told]) -> None:
        """Make the study hold the told trials; from the start where it holds more."""
        if len(told) < len(self._told):
            self._begin()
        for place, t in enumerate(told):
            if place == len(self._told):
                self._study.add_trial(self._frozen(t))
                self._told.append(t)
            elif not _same(self._told[place], t):
                self._replace(place, t)
                self._told[place] = t

    def _replace(self, place: int, t: Told) -> None:
        # Optuna lets no trial that has ended change, and a new study costs as much as all trials.
        study = self._study._study_id
        frozen = self._frozen(t)
        frozen.number = place
        frozen._trial_id = self._storage.get_trial_id_from_study_id_trial_number(study, place)
        self._storage._set_trial(frozen._trial_id, frozen)

    def _frozen(self, t: Told) -> FrozenTrial:
        state, value = _end(t)
        return optuna.trial.create_trial(
            state=state,
            value=value,
            params=dict(t.raw),
            distributions={name: self._distributions[name] for name in t.raw},
            constraints=dict(t.violations),
        )


def _same(known: Told, t: Told) -> bool:
    """Whether Optuna's trial stays; what a running one has reported is not in it."""
    return known == t or (known.state == t.state == "open" and known.raw == t.raw)


def _end(t: Told) -> tuple[TrialState, float | None]:
    if t.state == "open":
        return TrialState.RUNNING, None
    if t.state == "failed":
        return TrialState.FAIL, None
    return (TrialState.COMPLETE, t.values[0]) if t.values else (TrialState.PRUNED, None)


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
