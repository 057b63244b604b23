"""The study: begins trials in Optuna and tells it how they ended, in our words.

One writer. Its caller numbers the trials and keeps the queue of given points; asking and telling
again what was asked and told before changes nothing, so it can be fed again from the event log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.spec import JobSpec
from mir.errors import ConfigError, DivergedError, MirsweepError
from sweeps.apart import Places
from sweeps.axes import Raw, Shown, same_point
from sweeps.cube import Cube
from sweeps.draws import Stored
from sweeps.history import ALSO, ERROR, PAUSED, History
from sweeps.identity import MAY_CHANGE, identity, recorded_change
from sweeps.objective import direction, turned
from sweeps.points import uniform
from sweeps.samplers import BLIND, ExhaustedError, make_sampler
from sweeps.secrets import without_password
from sweeps.seeds import seed_of
from sweeps.space import space_of
from sweeps.spec import SweepSpec
from sweeps.storage import open_storage, storage_errors, storage_url
from sweeps.told import Told
from sweeps.transfer import Earlier, start_points

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_RECIPE, _STARTED = "mirsweep:recipe", "mirsweep:started"
_REASON, _SHOWN = "mirsweep:reason", "mirsweep:shown"
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


class RefusedError(ConfigError):
    """A point that is no valid job; its trial counts as failed."""

    def __init__(self, number: int, raw: Raw, reason: str) -> None:
        """raw: the point."""
        super().__init__(reason)
        self.number = number
        self.raw = raw


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
        self._places = Places(self._cube)
        sign = 1.0 if direction(sweep.study.objective) == "minimize" else -1.0
        self._history = History(sign)
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

    def first(self, begun: int, earlier: Callable[[str], Sequence[Earlier]]) -> list[Raw]:
        """The points to try before any that the sampler chooses, whole or in part.

        begun: how many trials the study's log has, where it has no queue of points yet. earlier:
        the trials of another study, best first. Raises ConfigError for points outside the space.
        """
        with storage_errors(self._url):
            trials = self._trials()
            if any(trial.state.name == "WAITING" for trial in trials):  # an earlier version's queue
                waiting = [trial for trial in trials if trial.state.name == "WAITING"]
                return [dict(trial.system_attrs["fixed_params"]) for trial in waiting]
            if _STARTED in self._study.user_attrs:
                return []
        points: list[Raw] = []
        for point in map(self.space.encode, self._start(earlier)):
            if not any(same_point(point, other) for other in points):
                points.append(point)
        return points[begun:]

    def ask(self, number: int, given: Raw) -> Trial:
        """Begin trial `number`, the first that the log lacks. given: what is not to be chosen.

        Asked again, perhaps by another process, it goes on with what the storage has of this trial.
        Raises RefusedError if the point is no valid job, the trial is then told as failed;
        ExhaustedError, with nothing begun, if nothing is given and the sampler has no point left.
        """
        with storage_errors(self._url):
            there = self._find(number)
            if there is not None and there.state.name == "FAIL":
                raise RefusedError(number, dict(there.params), there.user_attrs.get(_REASON, ""))
            stored = {} if there is None else there.params
            values = self._whole({**given, **stored})
            if values is None:
                values = self._proposed(number, given)
            return self._made(self._begun(number), values)

    def restore(self, number: int, raw: Raw, shown: Shown) -> None:
        """Bring a trial of the event log into the storage, unless it is there.

        raw: none for points that were refused by a version which did not keep them. Trials before
        it that the storage lacks are left open. Raises MirsweepError if it has other parameters.
        """
        with storage_errors(self._url):
            trial = self._begun(number)
            if not trial.params.items() <= raw.items():
                raise MirsweepError(f"trial {number} is in the study with other parameters.")
            if raw:
                self._draw(trial, raw)
                self._show(trial, shown)

    def report(self, number: int, samples: int, value: float, error: float = 0.0) -> None:
        """Note a feasible score of a running trial: the objective's value at `samples` seen.

        error: its standard error, which samplers that can use it are told.
        """
        if not math.isfinite(value):
            return
        with storage_errors(self._url):
            frozen = self._there(number)
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
            there = self._there(number)
            if not there.state.is_finished() and there.user_attrs.get(PAUSED, False) != paused:
                self._running(number).set_user_attr(PAUSED, paused)

    def also(self, number: int, values: Sequence[float]) -> None:
        """Note the other objectives of a running trial that is about to end; less is better."""
        with storage_errors(self._url):
            if not self._there(number).state.is_finished():
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
        objective = self.sweep.study.objective
        return min(found, key=lambda best: turned(objective, best.value), default=None)

    def states(self) -> dict[int, str]:
        """Optuna's state by number: WAITING, RUNNING, COMPLETE, PRUNED or FAIL."""
        with storage_errors(self._url):
            return {trial.number: trial.state.name for trial in self._trials()}

    def _trials(self) -> Sequence[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _there(self, number: int) -> FrozenTrial:
        """One trial; reading all of them reads every running one from the database."""
        storage = self._study._storage
        study = self._study._study_id
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study, number))

    def _find(self, number: int) -> FrozenTrial | None:
        try:
            return self._there(number)
        except KeyError:
            return None

    def _begun(self, number: int) -> optuna.trial.Trial:
        """A trial, running; those that the storage lacks before it are begun, too."""
        import optuna

        running = optuna.trial.TrialState.RUNNING
        there = number + 1
        while there > 0 and self._find(there - 1) is None:  # quicker than to count them all
            there -= 1
        for _ in range(there, number + 1):
            self._study.add_trial(optuna.trial.create_trial(state=running))
        while self._there(number).state.name == "WAITING":  # in an earlier version's queue
            self._study.ask()
        self._open.pop(number, None)  # it may have changed while the storage was out of reach
        return self._running(number)

    def _running(self, number: int) -> optuna.trial.Trial:
        import optuna

        if number not in self._open:
            there = self._there(number)
            if there.state.name != "RUNNING":
                raise MirsweepError(f"trial {number} is {there.state.name}, not RUNNING.")
            self._open[number] = optuna.trial.Trial(self._study, there._trial_id)
        return self._open[number]

    def _made(self, trial: optuna.trial.Trial, values: Raw) -> Trial:
        raw = self._draw(trial, values)
        try:
            job, shown = self.space.job(raw)
        except ConfigError as error:
            self.tell_failed(trial.number, str(error))
            raise RefusedError(trial.number, raw, str(error)) from error
        self._show(trial, shown)
        return Trial(trial.number, raw, job, shown, self.space.workers(raw))

    def _draw(self, trial: optuna.trial.Trial, values: Raw) -> Raw:
        from sweeps.given import Given

        self._study.sampler = Given(values)
        raw = self.space.draw(trial)
        self._places.note(trial.number, raw)
        return raw

    def _show(self, trial: optuna.trial.Trial, shown: Shown) -> None:
        if _SHOWN not in trial.user_attrs:
            trial.set_user_attr(_SHOWN, shown)

    def _proposed(self, number: int, given: Raw) -> Raw:
        """The sampler's choice of what is not given; a random one where it has no point left."""
        seed = seed_of(self.sweep.study.seed, number)
        told = () if self.sweep.study.sampler in BLIND else self._told(number)
        try:
            chosen = self._sampler.propose(number, told)
        except ExhaustedError:
            if not given:
                raise
            chosen = self._cube.values(uniform(seed, self._cube.dimensions))
        return {**self._places.kept_apart(chosen, number, seed), **given}

    def _told(self, number: int) -> list[Told]:
        """All trials but this one."""
        return [t for t in self._history.told(self._trials()) if t.number != number]

    def _whole(self, values: Raw) -> Raw | None:
        """The point that these values are, None where they are not all of one."""
        try:
            return self.space.draw(Stored(values))
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
            told = self._there(number)
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
                where = without_password(self._url)
                raise ConfigError(
                    f"study '{self.sweep.name}' in {where} is not mirsweep's. "
                    "Give the sweep another name or storage."
                )
            self._study.set_user_attr(_RECIPE, json.dumps(identity(self.sweep)))
        elif (change := recorded_change(json.loads(known), self.sweep)) is not None:
            raise ConfigError(
                f"study '{self.sweep.name}' was begun with another recipe: {change}. Only "
                f"{', '.join(MAY_CHANGE)} may change: restore the recipe or give it another name."
            )
        for trial in self._trials():
            # Who was killed in the middle of a draw has left a part of a point.
            self._places.note(trial.number, self._whole(trial.params) or {})

    def _start(self, earlier: Callable[[str], Sequence[Earlier]]) -> list[Mapping[str, Any]]:
        """The base recipe's own point, those given by hand, and the best of earlier studies."""
        spec = self.sweep.study
        best = start_points(self.space, map(earlier, spec.warm_start), spec.warm_points)
        return [self.space.start(), *map(self.space.point, spec.start), *best]
