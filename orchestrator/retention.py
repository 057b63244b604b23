"""Which checkpoints of a study go, and why: decided from values, carried out elsewhere.

A job keeps of its own run what its policy says (`jobs/checkpoint`). Here it is what the study
keeps of its trials, with a quota for all of them together.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.layout import CHECKPOINTS
from orchestrator.state import SweepView, TrialState, TrialView
from sweeps.objective import turned
from sweeps.spec import SweepSpec

_PREFIX, _HIDDEN = "samples-", ".samples-"
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A checkpoint on disk. leftover: half a save or half a removal, of use to nobody."""

    trial: int
    path: Path
    size: int
    leftover: bool = False


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A checkpoint that goes, with the reason that people read."""

    stored: Stored
    reason: str


def removals(view: SweepView, found: Collection[Stored]) -> list[Removal]:
    """What goes now, first what goes in any case, then what the quota asks for, in that order."""
    by_trial: dict[int, list[Stored]] = {}
    for stored in sorted(found, key=lambda stored: stored.path.name):
        by_trial.setdefault(stored.trial, []).append(stored)
    gone = [
        Removal(stored=stored, reason=reason)
        for number, mine in sorted(by_trial.items())
        for stored, reason in _of_trial(view.trials.get(number), mine)
    ]
    keep_best = view.spec.retention.keep_best
    if keep_best is not None:
        for number in _complete(view, by_trial)[keep_best:]:
            reason = f"trial {number} is not among the best {keep_best}"
            gone += [Removal(stored=stored, reason=reason) for stored in by_trial[number]]
    return gone + _over_quota(view, by_trial, {removal.stored for removal in gone})


def _of_trial(trial: TrialView | None, mine: list[Stored]) -> Iterator[tuple[Stored, str]]:
    for stored in mine:
        if trial is not None and trial.state is TrialState.PRUNED:
            yield stored, f"trial {stored.trial} was stopped"
        elif stored.leftover and trial is not None and trial.state is not TrialState.RUNNING:
            yield stored, "left behind by a save or a removal that was interrupted"


def _complete(view: SweepView, numbers: Collection[int]) -> list[int]:
    """Complete trials from best to worst; what does not count comes last."""
    objective = view.spec.study.objective

    def rank(number: int) -> tuple[bool, float, int]:
        trial = view.trials[number]
        value = trial.value(objective)
        known = math.inf if value is None else turned(objective, value)
        return not trial.feasible, known if math.isfinite(known) else math.inf, number

    complete = (n for n in numbers if _state(view, n) is TrialState.COMPLETE)
    return sorted(complete, key=rank)


def _state(view: SweepView, number: int) -> TrialState | None:
    trial = view.trials.get(number)
    return None if trial is None else trial.state


def _over_quota(
    view: SweepView, by_trial: Mapping[int, list[Stored]], gone: set[Stored]
) -> list[Removal]:
    quota = view.spec.retention.quota_gib
    if quota is None:
        return []
    left = {n: [s for s in mine if s not in gone] for n, mine in by_trial.items()}
    over = sum(s.size for mine in left.values() for s in mine) - quota * GIB
    reason = f"the study's checkpoints take more than {quota:g} GiB"
    removed = []
    for stored in _least_missed(view, left):
        if over <= 0:
            break
        removed.append(Removal(stored=stored, reason=reason))
        over -= stored.size
    return removed


def _least_missed(view: SweepView, left: Mapping[int, list[Stored]]) -> Iterator[Stored]:
    """What the quota may take, the least missed first; the best trial is never touched.

    Nor are leftovers of a trial that may run: they may be a save that is being written.
    """
    for number, mine in left.items():
        if _state(view, number) is TrialState.FAILED:
            yield from mine
    for number in reversed(_complete(view, left)[1:]):
        yield from left[number]
    for number, mine in left.items():
        if _state(view, number) not in (TrialState.FAILED, TrialState.COMPLETE):
            yield from [stored for stored in mine if not stored.leftover][:-1]


def over_quota(spec: SweepSpec, size: int) -> str | None:
    """What to tell people where nothing more may go and there is still too much; None if not."""
    quota = spec.retention.quota_gib
    if quota is None or size <= quota * GIB:
        return None
    return (
        f"checkpoints take {size / GIB:.3g} GiB of the quota of {quota:g} GiB and none may go: "
        "raise retention.quota_gib, or save smaller ones"
    )


def stored_of(trials: Path, number: int) -> list[Stored]:
    """A trial's checkpoints on disk. trials: the folder with one folder a trial."""
    return _in_folder(trials / f"{number:04d}", number)


def all_stored(trials: Path) -> list[Stored]:
    """The checkpoints of all trials."""
    if not trials.is_dir():
        return []
    folders = [path for path in trials.iterdir() if path.name.isdigit()]
    return [stored for folder in folders for stored in _in_folder(folder, int(folder.name))]


def _in_folder(folder: Path, number: int) -> list[Stored]:
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir():
        return []
    return [
        Stored(trial=number, path=path, size=_size(path), leftover=path.name.startswith(_HIDDEN))
        for path in checkpoints.iterdir()
        if path.name.startswith((_PREFIX, _HIDDEN))
    ]


def _size(folder: Path) -> int:
    """Bytes of a checkpoint that may be changing under our eyes."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # renamed or removed by its job meanwhile
    return total


def remove(stored: Stored) -> None:
    """Take a checkpoint away; renamed first, so that half of one never looks like a whole one.

    Raises OSError where it cannot go: then what is left of it is a leftover, which goes later.
    """
    hidden = stored.path
    if not stored.leftover:
        hidden = stored.path.with_name(f".{stored.path.name}.removed")
        try:
            stored.path.rename(hidden)
        except FileNotFoundError:
            return  # its job was quicker
    try:
        shutil.rmtree(hidden)
    except FileNotFoundError:
        return
    except OSError as error:  # names the file alone
        reason = f"{error.strerror} ({error.filename})"
        raise OSError(error.errno, reason, str(hidden)) from error
