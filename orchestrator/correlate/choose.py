"""Which trials of a study are fine-tuned: those that ran to the end and still have a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mir.errors import ConfigError
from orchestrator.layout import CHECKPOINTS, trial_folder
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.standing import ranked


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial and the checkpoint of its last step."""

    trial: TrialView
    checkpoint: Path


def candidates(view: SweepView, folder: Path) -> tuple[list[Candidate], list[str]]:
    """All trials that can be fine-tuned, best first, and a line for each kind of trial left out."""
    able: list[Candidate] = []
    unfinished: list[int] = []
    bare: list[str] = []
    for trial in ranked(view):
        if trial.state is not TrialState.COMPLETE or not trial.scores:
            unfinished.append(trial.number)
            continue
        path = _last_checkpoint(trial_folder(folder, trial.number) / CHECKPOINTS)
        if path is None or _samples(path) != trial.samples:
            having = "none" if path is None else f"one at {_samples(path):,}"
            bare.append(f"{trial.number} (has {having}, ended at {trial.samples:,} samples)")
            continue
        able.append(Candidate(trial=trial, checkpoint=path))
    left_out = []
    if unfinished:
        left_out.append(f"left out, not run to the end: trials {_listed(sorted(unfinished))}")
    if bare:
        left_out.append(
            f"left out, no checkpoint of the last step is kept: trials {', '.join(bare)}"
        )
    return able, left_out


def choose(
    able: list[Candidate], top: int | None, stratified: int | None, name: str
) -> list[Candidate]:
    """The best `top` and `stratified` spread evenly over the ranks of final MIR; all by default.

    able: best first. The answer is in order of trial number. Raises ConfigError where none is.
    """
    if not able:
        raise ConfigError(
            f"STUDY: {name!r} has no trial that ran to the end and kept its last checkpoint. "
            "Finish the study, with checkpoint.keep of at least 1"
        )
    if top is None and stratified is None:
        return sorted(able, key=lambda one: one.trial.number)
    by_mir = sorted(able, key=lambda one: (one.trial.mir or 0.0, one.trial.number))
    chosen = {one.trial.number: one for one in able[: top or 0]}
    chosen |= {one.trial.number: one for one in spread(by_mir, stratified or 0)}
    return [chosen[number] for number in sorted(chosen)]


def spread(ordered: list[Candidate], count: int) -> list[Candidate]:
    """`count` of them at even steps, both ends included."""
    if count >= len(ordered):
        return ordered
    if count < 2:
        return ordered[len(ordered) // 2 :][:count]
    step = (len(ordered) - 1) / (count - 1)
    return [ordered[round(index * step)] for index in range(count)]


def _last_checkpoint(folder: Path) -> Path | None:
    return max(folder.glob("samples-*"), default=None)


def _samples(path: Path) -> int:
    digits = path.name.removeprefix("samples-")
    return int(digits) if digits.isdigit() else -1


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)
