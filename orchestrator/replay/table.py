"""Curves that were measured, as a small table: what a simulated job is made of.

A point that was not measured is given the curve of the nearest one that was, by the distance of
`Space.coordinates`, with fresh noise of the size of each standard error. Only trials that ran to
their full budget can stand for others: how a stopped one would have gone on nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jobs.events import GuardReading, Scored
from jobs.files import written_whole
from mir.errors import ConfigError, DataError
from mir.report import MirReport, Protocol
from orchestrator.state import SweepView, TrialState
from sweeps.axes import Value
from sweeps.secrets import recorded
from sweeps.seeds import seed_of
from sweeps.space import Space, space_of
from sweeps.spec import SweepSpec

LEAST = 3  # full curves below which a table says nothing


@dataclass(frozen=True)
class Reading:
    """One score. Standard errors beside what they belong to."""

    samples: int
    mir: float
    error: float
    loss: float
    gap: float
    gap_error: float

    def scored(self, noise: Sequence[float], seconds: float) -> Scored:
        """As a job would say it; noise: in standard errors, of MIR and of the gap."""
        report = MirReport(
            mir=self.mir + noise[0] * self.error,
            standard_error=self.error,
            protocol=Protocol(variant="exact"),
            layers=(),
        )
        gap = self.gap + noise[1] * self.gap_error
        guard = GuardReading(
            validation_loss=self.loss,
            wrong_loss=self.loss + gap,
            gap=gap,
            gap_error=self.gap_error,
        )
        return Scored(samples=self.samples, mir=report.to_json(), guard=guard, seconds=seconds)


@dataclass(frozen=True)
class Recorded:
    """One trial that ran to the end. seconds: of the whole run, scoring: those of its scores."""

    raw: Mapping[str, Value]
    seconds: float
    scoring: float
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Table:
    """The full curves of a study, and its recipe."""

    spec: SweepSpec
    trials: tuple[Recorded, ...]

    @cached_property
    def space(self) -> Space:
        """The recipe's space."""
        return space_of(self.spec)

    @cached_property
    def _places(self) -> np.ndarray[Any, Any]:
        return np.array([self.space.coordinates(trial.raw) for trial in self.trials])

    def nearest(self, raw: Mapping[str, Value]) -> Recorded:
        """The measured trial that stands for a point."""
        here = np.array(self.space.coordinates(raw))
        return self.trials[int(((self._places - here) ** 2).sum(1).argmin())]

    def curve(self, raw: Mapping[str, Value], *seeds: object) -> list[Scored]:
        """The scores of a point, with noise drawn from the seeds."""
        trial = self.nearest(raw)
        rng = np.random.default_rng(seed_of("replay", *seeds))
        each = trial.scoring / len(trial.readings)
        return [reading.scored(rng.normal(size=2).tolist(), each) for reading in trial.readings]


def table_of(view: SweepView) -> Table:
    """The table of a study. Raises ConfigError where too few trials ran to the end."""
    trials = tuple(
        Recorded(
            raw=dict(trial.raw),
            seconds=trial.seconds,
            scoring=sum(score.seconds for score in trial.scores),
            readings=tuple(_reading(score) for score in trial.scores),
        )
        for _, trial in sorted(view.trials.items())
        if trial.state is TrialState.COMPLETE
    )
    if len(trials) < LEAST:
        raise ConfigError(
            f"study {view.spec.name!r}: {len(trials)} trials ran to the end, {LEAST} are needed "
            "to replay. Run it with --set stop.rule=none"
        )
    return Table(view.spec, trials)


def _reading(score: Scored) -> Reading:
    return Reading(
        samples=score.samples,
        mir=score.mir["mir"],
        error=score.mir["standard_error"] or 0.0,
        loss=score.guard.validation_loss,
        gap=score.guard.gap,
        gap_error=score.guard.gap_error,
    )


def save_table(table: Table, path: Path) -> None:
    """Write the table as JSON; figures rounded to six digits, which is below their errors."""
    trials = [_rounded(asdict(trial)) for trial in table.trials]
    spec = _portable(recorded(table.spec).model_dump(mode="json"))
    data = {"version": 1, "spec": spec, "trials": trials}
    with written_whole(path) as part:
        part.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")


def _portable(value: Any) -> Any:
    """Without the folders of this machine: nothing is read from them again."""
    if isinstance(value, dict):
        return {name: _portable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        # Parameters keep their digits: they are the points themselves.
        return {k: v if k == "raw" else _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def load_table(path: Path) -> Table:
    """Read a table. Raises DataError where the file is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        trials = tuple(
            Recorded(
                raw=trial["raw"],
                seconds=trial["seconds"],
                scoring=trial["scoring"],
                readings=tuple(Reading(**reading) for reading in trial["readings"]),
            )
            for trial in data["trials"]
        )
        return Table(SweepSpec.model_validate(data["spec"]), trials)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no table of curves ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "`mirsweep replay STUDY --save FILE` writes one"
        ) from error
