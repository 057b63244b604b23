"""The study: asks Optuna for trials and tells it how they ended, in our words.

One writer. Everything is in the storage: a study opened again goes on where it was, and telling
what was told before changes nothing, so it can be fed again from the event log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.spec import JobSpec
from mir.errors import ConfigError, DivergedError, MirsweepError
from sweeps.apart import kept_apart
from sweeps.axes import Raw, Shown, Value
from sweeps.cube import Cube
from sweeps.draws import Stored
from sweeps.history import ALSO, ERROR, PAUSED, history
from sweeps.identity import MAY_CHANGE, identity, recorded_change
from sweeps.objective import direction
from sweeps.samplers import make_sampler
from sweeps.seeds import seed_of
from sweeps.space import space_of
from sweeps.spec import SweepSpec
from sweeps.storage import open_storage, storage_errors, storage_url
from sweeps.transfer import SHOWN, start_points

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_RECIPE, _STARTED = "mirsweep:recipe", "mirsweep:started"
_REASON = "mirsweep:reason"
MAX_VIOLATION = 1e6


@dataclass(frozen=True)
class Trial:
    """One point. raw: Optuna's parameters; shown: what people see, mixtures as weights.

    workers: the number of ranks, None where the search does not choose it.
    """

    number: int
    raw: Raw
    job: JobSpec
    shown: Shown
    workers: int | None = None


@dataclass(frozen=True)
class Best:
    """The best feasible complete trial."""

    number: int
    value: float


class Study:
    """Optuna behind our words.

    Opens the study in its storage, or begins it there. Raises ConfigError if the storage holds a
    study of another recipe (only budget, resources and tracking may change), ClusterError if the
    storage cannot be reached.
    """

    def __init__(self, sweep: SweepSpec, folder: Path) -> None:
        """Open or begin; `folder` must exist if the recipe names no storage."""
        import optuna

        # Optuna announces studies and speed hints on stderr, across the live view.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep = sweep
        self.space = space_of(sweep)
        self._cube = Cube(self.space)
        self._sampler = make_sampler(self._cube, sweep.study)
        self._url = storage_url(sweep.study.storage, folder)
        self._open: dict[int, optuna.trial.Trial] = {}
        storage = open_storage(self._url)
        with storage_errors(self._url):
            self._study = optuna.create_study(
                storage=storage,
                study_name=sweep.name,
                direction=direction(sweep.study.objective),
                pruner=optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            self._begin_or_continue()

    def ask(self) -> Trial:
        """Begin the next trial: an enqueued point if there is one, else the sampler's choice.

        Raises ConfigError if the point is no valid job; the trial is then told as failed.
        """
        with storage_errors(self._url):
            trial = self._study.ask()
            self._open[trial.number] = trial
            return self._drawn(trial)

    def adopt(self, number: int) -> Trial:
        """Take up a running trial of an earlier process, with the very same parameters."""
        with storage_errors(self._url):
            return self._drawn(self._running(number))

    def enqueue(self, shown: Mapping[str, Any]) -> None:
        """Ask for this point next; parameters that are left out are drawn.

        shown: by the names that people see, e.g. {'learning_rate': 1e-3, 'moca': 'off'}; of a
        mixture, all weights. Raises ConfigError for unknown names and values outside the space.
        """
        raw = self.space.encode(shown)
        with storage_errors(self._url):
            self._study.enqueue_trial(raw)

    def restore(self, number: int, raw: Mapping[str, Value]) -> Trial:
        """Make a trial again from the event log, unless it is there; call in order of number.

        Raises MirsweepError if a trial of this number has other parameters, or one is left out.
        """
        with storage_errors(self._url):
            count = len(self._trials())
            if number > count:
                raise MirsweepError(f"trial {number} cannot be restored before trial {count}.")
            if number == count:
                self._study.enqueue_trial(dict(raw))
            there = self._trials()[number]
            if there.state.name == "WAITING":
                restored = self.ask()
            else:
                drawn = self.space.draw(Stored(there.params))
                restored = self._trial(number, drawn)
        if restored.raw != dict(raw) or restored.number != number:
            raise MirsweepError(f"trial {number} is in the study with other parameters.")
        return restored

    def report(self, number: int, samples: int, value: float, error: float = 0.0) -> None:
        """Note a feasible score of a running trial: the objective's value at `samples` seen.

        error: its standard error, which samplers that can use it are told.
        """
        if not math.isfinite(value):
            return
        with storage_errors(self._url):
            frozen = self._trials()[number]
            if frozen.state.is_finished() or samples in frozen.intermediate_values:
                return
            trial = self._running(number)
            trial.report(value, samples)
            if error:
                trial.set_user_attr(ERROR, error)

    def paused(self, number: int, *, paused: bool) -> None:
        """Note that a running trial waits to be resumed, perhaps for ever, or that it goes on.

        Optuna has it running all the same: it may not be told twice, and it may return.
        """
        with storage_errors(self._url):
            there = self._trials()[number]
            if not there.state.is_finished() and there.user_attrs.get(PAUSED, False) != paused:
                self._running(number).set_user_attr(PAUSED, paused)

    def also(self, number: int, values: Sequence[float]) -> None:
        """Note the other objectives of a running trial that is about to end; less is better."""
        with storage_errors(self._url):
            if not self._trials()[number].state.is_finished():
                self._running(number).set_user_attr(ALSO, list(values))

    def tell_complete(self, number: int, objective: float, violations: Mapping[str, float]) -> None:
        """End a trial with its value; infeasible ones (a violation above 0) are never best.

        Raises DivergedError if the value is not finite: tell such a trial as failed.
        """
        if not math.isfinite(objective):
            raise DivergedError(f"trial {number}: the objective is {objective}: tell it as failed.")
        self._tell(number, "COMPLETE", objective, violations, "")

    def tell_pruned(
        self, number: int, reason: str, violations: Mapping[str, float] | None = None
    ) -> None:
        """End a trial that was stopped; its last reported value counts as pruned only."""
        self._tell(number, "PRUNED", None, violations or {}, reason)

    def tell_failed(self, number: int, reason: str) -> None:
        """End a trial without a value."""
        self._tell(number, "FAIL", None, None, reason)

    def best(self) -> Best | None:
        """The best complete trial among the feasible, the earlier of equals; None without one."""
        with storage_errors(self._url):
            trials = [t for t in self._trials() if t.state.name == "COMPLETE"]
        found = [
            Best(t.number, t.value)
            for t in trials
            if t.value is not None and all(v <= 0 for v in t.constraints.values())
        ]
        sign = 1 if direction(self.sweep.study.objective) == "minimize" else -1
        return min(found, key=lambda best: sign * best.value, default=None)

    def states(self) -> dict[int, str]:
        """Optuna's state by number: WAITING, RUNNING, COMPLETE, PRUNED or FAIL."""
        with storage_errors(self._url):
            return {trial.number: trial.state.name for trial in self._trials()}

    def running(self) -> list[int]:
        """Numbers to adopt after a restart."""
        return [number for number, state in self.states().items() if state == "RUNNING"]

    def _trials(self) -> Sequence[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _running(self, number: int) -> optuna.trial.Trial:
        import optuna

        if number not in self._open:
            trials = self._trials()
            if not 0 <= number < len(trials) or trials[number].state.name != "RUNNING":
                state = trials[number].state.name if 0 <= number < len(trials) else "unknown"
                raise MirsweepError(f"trial {number} is {state}, not RUNNING.")
            self._open[number] = optuna.trial.Trial(self._study, trials[number]._trial_id)
        return self._open[number]

    def _drawn(self, trial: optuna.trial.Trial) -> Trial:
        number = trial.number
        raw = self._stored(trial) or self._proposed(trial)
        try:
            made = self._trial(number, raw)
        except ConfigError as error:
            self.tell_failed(number, str(error))
            raise
        if SHOWN not in trial.user_attrs:
            trial.set_user_attr(SHOWN, made.shown)
        return made

    def _trial(self, number: int, raw: Raw) -> Trial:
        job, shown = self.space.job(raw)
        return Trial(number, raw, job, shown, self.space.workers(raw))

    def _proposed(self, trial: optuna.trial.Trial) -> Raw:
        """The sampler's choice, where the point was not given."""
        from sweeps.given import Given

        sign = 1.0 if direction(self.sweep.study.objective) == "minimize" else -1.0
        told = [t for t in history(self._trials(), sign) if t.number != trial.number]
        chosen = self._sampler.propose(trial.number, told)
        seed = seed_of(self.sweep.study.seed, trial.number)
        self._study.sampler = Given(kept_apart(self._cube, chosen, told, seed))
        return self.space.draw(trial)

    def _stored(self, trial: optuna.trial.Trial) -> Raw | None:
        """What was drawn before, None if the process died before all of it was."""
        try:
            return self.space.draw(Stored(trial.params))
        except KeyError:
            return None

    def _tell(
        self,
        number: int,
        state: str,
        value: float | None,
        violations: Mapping[str, float] | None,
        reason: str,
    ) -> None:
        import optuna

        with storage_errors(self._url):
            told = self._trials()[number]
            if told.state.is_finished():
                if told.state.name != state or (value is not None and told.value != value):
                    raise MirsweepError(
                        f"trial {number} was told {told.state.name} {told.value}; it cannot also "
                        f"be {state} {value}."
                    )
                return
            trial = self._running(number)
            if violations is not None:
                self._constrain(trial, violations)
            if reason:
                trial.set_user_attr(_REASON, reason)
            self._study.tell(trial, value, state=optuna.trial.TrialState[state])
            del self._open[number]

    def _constrain(self, trial: optuna.trial.Trial, violations: Mapping[str, float]) -> None:
        # Every trial gets the same keys in the same order: Optuna's GP sampler refuses others.
        already = trial.constraints
        names = dict.fromkeys([*self.sweep.study.guard.constraints, *violations])
        for name in names:
            if name not in already:
                violation = violations.get(name, 0.0)
                finite = MAX_VIOLATION if math.isnan(violation) else violation
                trial.set_constraint(name, max(-MAX_VIOLATION, min(finite, MAX_VIOLATION)))

    def _begin_or_continue(self) -> None:
        known = self._study.user_attrs.get(_RECIPE)
        if known is None:
            if self._trials():
                raise ConfigError(
                    f"study '{self.sweep.name}' in {self._url.split('@')[-1]} is not mirsweep's. "
                    "Give the sweep another name or storage."
                )
            self._study.set_user_attr(_RECIPE, json.dumps(identity(self.sweep)))
        elif (change := recorded_change(json.loads(known), self.sweep)) is not None:
            raise ConfigError(
                f"study '{self.sweep.name}' was begun with another recipe: {change}. Only "
                f"{', '.join(MAY_CHANGE)} may change: restore the recipe or give it another name."
            )
        if _STARTED not in self._study.user_attrs:
            # Killed between the two writes, a new process enqueues the same point once more.
            for point in self._start():
                self._study.enqueue_trial(self.space.encode(point), skip_if_exists=True)
            self._study.set_user_attr(_STARTED, True)

    def _start(self) -> list[Mapping[str, Any]]:
        """The base recipe's own point, those given by hand, and the best of earlier studies."""
        spec = self.sweep.study
        best = start_points(self.space, spec.warm_start, spec.warm_points)
        return [self.space.start(), *map(self.space.point, spec.start), *best]
