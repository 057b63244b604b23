"""Every source that some trial of a recipe would read: the base's, and what the space chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.spec import JobSpec, SourceSpec
from sweeps.axes import Axis, Path, Raw, Shown, product
from sweeps.axis_branch import BranchAxis
from sweeps.document import dotted
from sweeps.space import Space, space_of
from sweeps.spec import SweepSpec

VALIDATION, PICTURES = "validation", "score.images"
_CHOSEN: tuple[Path, ...] = (("data", "sources"), ("data", VALIDATION))


@dataclass(frozen=True)
class Chosen:
    """A source to read. place: in its job; where: the choice that makes it, empty in the base."""

    place: str
    where: str
    spec: SourceSpec

    @property
    def name(self) -> str:
        """As people see it: its place, with the choice behind it."""
        return f"{self.place} where {self.where}" if self.where else self.place


@dataclass(frozen=True)
class Variant:
    """A job that reads its own set of sources. names: of each of them, by its place in the job."""

    job: JobSpec
    where: str
    names: Mapping[str, str]


@dataclass(frozen=True)
class DataChoices:
    """sources: by name, each once. variants: the base first, then one for each choice."""

    sources: Mapping[str, Chosen]
    variants: tuple[Variant, ...]

    def beside(self, name: str) -> list[str]:
        """Other training sources that some job reads together with this one."""
        jobs = [v.names for v in self.variants if name in v.names.values()]
        found = [other for names in jobs for place, other in names.items() if is_training(place)]
        return [other for other in dict.fromkeys(found) if other != name]


def is_training(place: str) -> bool:
    """Whether what stands at this place of a job is trained on."""
    return place.startswith("sources.")


def data_choices(sweep: SweepSpec) -> DataChoices:
    """All that is to be read; each choice of the space alone, all else as in the base.

    Raises ConfigError where a choice makes no valid job.
    """
    space = space_of(sweep)
    axes = list(_source_axes(space.axes))
    jobs: list[tuple[JobSpec, Shown]] = [(sweep.base, {}), *_varied(space, axes)]
    owners = _owners(axes)
    common: dict[tuple[str, SourceSpec], Shown] = {}  # what all jobs with a source have chosen
    for job, shown in jobs:
        for key in named_sources(job).items():
            own = {name: shown[name] for name in shown if owners.get(name, key[0]) == key[0]}
            so_far = common.setdefault(key, own)
            common[key] = dict(so_far.items() & own.items()) or so_far
    found = {key: Chosen(key[0], _told(shown), key[1]) for key, shown in common.items()}
    variants = tuple(
        Variant(job, _told(shown), {key[0]: found[key].name for key in named_sources(job).items()})
        for job, shown in jobs
    )
    return DataChoices({chosen.name: chosen for chosen in found.values()}, variants)


def _told(shown: Shown) -> str:
    return " and ".join(f"{name} is {value}" for name, value in sorted(shown.items()))


def named_sources(job: JobSpec) -> dict[str, SourceSpec]:
    """What a job reads by its place in the recipe; training sources first."""
    found = {f"sources.{name}": source for name, source in job.data.sources.items()}
    found[VALIDATION] = job.data.validation
    if job.score.images is not None:
        found[PICTURES] = job.score.images
    return found


def _varied(space: Space, axes: Sequence[Axis]) -> Iterator[tuple[JobSpec, Shown]]:
    """The base with one source, or one whole set of sources, as each choice makes it."""
    for group in _by_source(axes):
        part = Space(space.base, tuple(group))
        for raw in _places(group):
            yield part.job(raw)


def _owners(axes: Sequence[Axis], at: Path = ()) -> dict[str, str]:
    """Names of what varies within one training source, and that source's place in the job."""
    owners: dict[str, str] = {}
    for axis in axes:
        path = (*at, *axis.path)
        if len(path) > 2 and path[:2] == _CHOSEN[0]:
            owners |= dict.fromkeys(axis.names(), dotted(path[1:3]))
        elif isinstance(axis, BranchAxis):
            for branch in axis.branches.values():
                owners |= _owners(branch.axes, path)
    return owners


def _by_source(axes: Sequence[Axis], at: Path = ()) -> list[list[Axis]]:
    groups: dict[Path, list[Axis]] = {}
    for axis in axes:
        groups.setdefault((*at, *axis.path)[:3], []).append(axis)
    return list(groups.values())


def _places(axes: Sequence[Axis], at: Path = ()) -> list[Raw]:
    """All combinations within a source, one source at a time, the others at their first place.

    Combinations across sources make no other source, and of ten with three paths each 59,049 jobs.
    """
    found = [product(*(_ends(axis, at) for axis in group)) for group in _by_source(axes, at)]
    first = {name: value for points in found for name, value in points[0].items()}
    return [first, *(first | other for points in found for other in points[1:])]


def _ends(axis: Axis, at: Path) -> list[Raw]:
    """The axis at its two ends, at all of its choices, or in all of its branches."""
    if not isinstance(axis, BranchAxis):
        return axis.grid(levels=2)
    found: list[Raw] = []
    for name, branch in axis.branches.items():
        found += product([{axis.raw: name}], _places(branch.axes, (*at, *axis.path)))
    return found


def _source_axes(axes: Sequence[Axis], at: Path = ()) -> Iterator[Axis]:
    """Those that choose or change a source; of branches that do, what else varies is left out."""
    for axis in axes:
        path = (*at, *axis.path)
        if isinstance(axis, BranchAxis) and (path == ("data",) or path[:2] in _CHOSEN):
            branches = {
                name: replace(branch, axes=tuple(_source_axes(branch.axes, path)))
                for name, branch in axis.branches.items()
            }
            yield replace(axis, branches=branches)
        elif path[:2] in _CHOSEN:
            yield axis
