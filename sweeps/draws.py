"""Two ways to draw a point: from Optuna's sampler, or from what was drawn before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.axes import Value
from sweeps.samplers import make_sampler
from sweeps.spec import StudySpec

if TYPE_CHECKING:
    import optuna


class Seeded:
    """Draws from a trial, each parameter with a seed of its own.

    So a trial whose drawing was interrupted is completed as if it had not been.
    """

    def __init__(self, study: optuna.Study, trial: optuna.trial.Trial, spec: StudySpec) -> None:
        self._study, self._trial, self._spec = study, trial, spec
        self._reseed("")
        # All that is drawn jointly is drawn here, under the seed without a parameter's name.
        _ = trial.relative_params

    def _reseed(self, name: str) -> None:
        self._study.sampler = make_sampler(self._spec, self._trial.number, name)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw a float."""
        self._reseed(name)
        return self._trial.suggest_float(name, low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Draw an integer."""
        self._reseed(name)
        return self._trial.suggest_int(name, low, high, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        """Draw one of the choices."""
        self._reseed(name)
        return self._trial.suggest_categorical(name, choices)


class Stored:
    """Gives what was drawn before. Raises KeyError for what was not."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:  # noqa: ARG002
        """The stored float."""
        return float(self._params[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:  # noqa: ARG002
        """The stored integer."""
        return int(self._params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:  # noqa: ARG002
        """The stored choice."""
        return self._params[name]
