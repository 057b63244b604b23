"""One policy over one table: the controller as it is, jobs and time pretended."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.events import Scored
from mir.errors import ConfigError
from orchestrator.budget import devices
from orchestrator.controller import Controller
from orchestrator.executors.simulated import SimulatedExecutor
from orchestrator.ledger import Ledger, ledger
from orchestrator.ports import Launch
from orchestrator.replay.table import Table
from orchestrator.state import SweepView
from orchestrator.trackers.memory import MemoryTracker
from orchestrator.views.standing import counts
from sweeps.axes import Raw
from sweeps.guard import feasibility, outdone
from sweeps.objective import direction, objective_value
from sweeps.spec import SweepSpec
from sweeps.storage import IN_MEMORY
from sweeps.study import Study, Trial

# The pretended cluster has room for everything that a recipe may ask of a real one.
_PRETENDED: dict[str, object] = {"custom": {}, "spread": "pack", "autoscale": False}
WITHIN = 0.01  # of the best recorded value: that near counts as having found it


@dataclass(frozen=True)
class Outcome:
    """One replay. course: device-hours and best value so far, less is better, at each new best."""

    seed: int
    ledger: Ledger
    best: float | None
    course: tuple[tuple[float, float], ...]
    target: float

    @property
    def reached(self) -> float | None:
        """Device-hours until a trial within 1 % of the best recorded one had ended."""
        return next((hours for hours, value in self.course if value <= self.target), None)


class _Noting(Study):
    """A study that keeps the points it gave."""

    def __init__(self, spec: SweepSpec, folder: Path, points: dict[int, Raw]) -> None:
        self._points = points
        super().__init__(spec, folder)

    def ask(self, number: int, given: Raw) -> Trial:
        trial = super().ask(number, given)
        self._points[trial.number] = trial.raw
        return trial


def replay(table: Table, policy: SweepSpec, seed: int, at_once: int) -> Outcome:
    """Run a policy from the start. policy: the table's recipe with another search and stopping."""
    changes = {"seed": seed, "storage": IN_MEMORY, "warm_start": ()}
    study = policy.study.model_copy(update=changes)
    resources = policy.resources.model_copy(update=_PRETENDED | {"max_concurrent": at_once})
    spec = policy.model_copy(update={"study": study, "resources": resources})
    points: dict[int, Raw] = {}

    def curve(launch: Launch) -> list[Scored]:
        return table.curve(points[launch.trial], seed, launch.trial)

    def pace(launch: Launch) -> float:
        trial = table.nearest(points[launch.trial])
        return trial.seconds / trial.readings[-1].samples

    executor = SimulatedExecutor(curve, pace, slots=at_once)
    with tempfile.TemporaryDirectory(prefix="mirsweep-replay-") as folder:
        view = Controller(
            spec,
            Path(folder) / "study",
            executor,
            MemoryTracker(),
            open_study=lambda spec, folder: _Noting(spec, folder, points),
            clock=executor.clock,
        ).run()
        return _outcome(table, view, seed, executor.spans)


def _outcome(
    table: Table, view: SweepView, seed: int, spans: Sequence[tuple[float, float, int]]
) -> Outcome:
    objective = view.spec.study.objective
    sign = 1.0 if direction(objective) == "minimize" else -1.0
    hours, best, course = 0.0, math.inf, []
    each = devices(view.spec.resources, 1) / 3600
    for trial in sorted(view.trials.values(), key=lambda t: (t.ended or 0.0, t.number)):
        hours = _worker_seconds_until(spans, trial.ended or 0.0) * each
        if counts(trial) and trial.objective is not None and sign * trial.objective < best:
            best = sign * trial.objective
            course.append((hours, best))
    return Outcome(
        seed=seed,
        ledger=ledger(view, view.updated),
        best=sign * best if course else None,
        course=tuple(course),
        target=_target(table, sign),
    )


def _worker_seconds_until(spans: Sequence[tuple[float, float, int]], when: float) -> float:
    """Seconds that workers of all attempts had been occupied by then."""
    return sum(max(0.0, min(end, when) - begin) * workers for begin, end, workers in spans)


def _target(table: Table, sign: float) -> float:
    """Within 1 % of the best feasible trial of the table."""
    objective, guard = table.spec.study.objective, table.spec.study.guard
    curves = [[one.scored((0.0, 0.0), 0.0) for one in trial.readings] for trial in table.trials]
    losses = {
        number: {
            scores[i].samples: scores[i].guard.validation_loss
            for i in range(1, len(scores))
            if feasibility(scores[: i + 1], guard).feasible
        }
        for number, scores in enumerate(curves)
    }
    beaten = outdone(losses, guard)
    values = [
        sign * objective_value(objective, scores[-1])
        for number, scores in enumerate(curves)
        if scores[-1].samples in losses[number] and number not in beaten
    ]
    if not values:
        raise ConfigError(
            f"study {table.spec.name!r}: no trial that ran to the end has a score that counts, so "
            "there is nothing to find again"
        )
    return min(values) + WITHIN * abs(min(values))
