"""The search space: which fields of a job vary, and the job of each point.

`space` in a recipe mirrors the job's nesting; where a field varies, it says how:

    space:
      optim: {learning_rate: {low: 1e-4, high: 1e-1, log: true}}
      data: {mixture: {mixture: all, floor: 0.0}}
      model:
        moca:
          branches:
            "off": null
            "on": {kind: scale-shift, init_std: {low: 0.0, high: 0.05}}

A branch replaces the field's value in `base` as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from jobs.spec import JobSpec
from jobs.spec.batch import split_batch
from mir.errors import ConfigError
from sweeps.axes import Axis, Raw, Shown, Suggester, Value, get, product, put
from sweeps.axis_mixture import MixtureAxis
from sweeps.document import dotted
from sweeps.mistakes import Mistake, from_pydantic, no_such
from sweeps.searched import RANKS, Searched, searched
from sweeps.space_parser import EQUAL_IN_A_STUDY, MIXTURE, SpaceParser, how_to_size
from sweeps.spec import SweepSpec

_SPLIT = (RANKS, ("deepspeed", "micro_batch"), ("optim", "global_batch"))


@dataclass(frozen=True)
class Space:
    """A validated search space over the fields of `base`."""

    base: Searched
    axes: tuple[Axis, ...]

    def draw(self, trial: Suggester) -> Raw:
        """Ask an Optuna trial for all raw parameters; always in the same order."""
        raw: Raw = {}
        for axis in self.axes:
            raw |= axis.draw(trial)
        return raw

    def job(self, raw: Mapping[str, Value], seed: int | None = None) -> tuple[JobSpec, Shown]:
        """The job of a point, and its parameters as people see them.

        seed: replaces the base's. Raises ConfigError naming the space field if the point is not
        a valid job, or its ranks cannot share its batch.
        """
        tree = self.base.to_json()
        shown: Shown = {}
        # Caps by epochs depend on samples and sizes, which other axes may set.
        for axis in sorted(self.axes, key=lambda axis: isinstance(axis, MixtureAxis)):
            try:
                setting = axis.setting(raw, tree)
            except ValueError as error:
                raise ConfigError(f"space.{dotted(axis.path)}: {error}.") from error
            put(tree, axis.path, setting)
            shown |= axis.shown(raw, setting)
        if seed is not None:
            tree["seed"] = seed
        try:
            made = Searched.model_validate(tree)
        except ValidationError as error:
            mistake = from_pydantic(error, Searched, tree)[0]
            raise ConfigError(f"space.{dotted(mistake.path)}: {mistake.text}") from error
        self._require_split(made)
        self._require_comparable(made)
        del tree["resources"]
        return JobSpec.model_validate(tree), shown

    def workers(self, raw: Mapping[str, Value]) -> int | None:
        """The number of ranks at a point; None where it does not vary."""
        for axis in self.axes:
            if axis.path == RANKS:
                return int(axis.setting(raw, {}))
        return None

    def sizes(self) -> list[int]:
        """The fewest and the most ranks of a job, with all choices where they are listed."""
        for axis in self.axes:
            if axis.path == RANKS:
                return [int(axis.setting(raw, {})) for raw in axis.extremes()]
        return [self.base.resources.workers]

    def _require_split(self, made: Searched) -> None:
        """Raise ConfigError where what varies gives a batch that the ranks cannot share."""
        varied = [axis.path for axis in self.axes if axis.path in _SPLIT]
        if not varied:
            return  # the same for all jobs: `recipe` says so, at the field in base
        optim, micro = made.optim, made.deepspeed.micro_batch
        try:
            split_batch(optim.global_batch, made.resources.workers, micro)
        except ConfigError as error:
            raise ConfigError(f"space.{dotted(varied[0])}: {error}") from error

    def _require_comparable(self, made: Searched) -> None:
        """Raise ConfigError where a branch over more than that changes what all scores rest on."""
        for axis in self.axes:
            for path in EQUAL_IN_A_STUDY:
                if path[: len(axis.path)] != axis.path:
                    continue
                if get(made.to_json(), path) != get(self._tree, path):
                    raise ConfigError(
                        f"space.{dotted(axis.path)}: changes {dotted(path)}, which is equal for a "
                        f"whole study, so scores can be compared. Write base.{dotted(path)} there "
                        "as well, or vary less than all of it."
                    )

    def encode(self, shown: Mapping[str, Any]) -> Raw:
        """Raw parameters of what people see; what is not given is left to the sampler.

        Raises ConfigError for unknown names and for values outside the space.
        """
        known = [name for axis in self.axes for name in axis.names()]
        for name in shown:
            if name not in known:
                raise ConfigError(f"{name}: {no_such('parameter of this sweep', name, known)}")
        raw: Raw = {}
        for axis in self.axes:
            raw |= axis.encode(shown)
        return raw

    def grid(self, levels: int) -> list[Raw]:
        """All points of a grid; see `Axis.grid`."""
        return product(*(axis.grid(levels) for axis in self.axes))

    def coordinates(self, raw: Mapping[str, Value]) -> list[float]:
        """Where a point lies, for distances and models: see `Axis.coordinates`."""
        tree = self._settled(raw) if self._capped else self._tree
        return [place for axis in self.axes for place in axis.coordinates(raw, tree)]

    @cached_property
    def _tree(self) -> dict[str, Any]:
        return self.base.to_json()

    @cached_property
    def _capped(self) -> bool:
        return any(isinstance(axis, MixtureAxis) and axis.max_epochs for axis in self.axes)

    def _settled(self, raw: Mapping[str, Value]) -> dict[str, Any]:
        """The job as JSON with all axes but mixtures set: caps depend on samples and sizes."""
        tree = self.base.to_json()
        for axis in self.axes:
            if not isinstance(axis, MixtureAxis):
                put(tree, axis.path, axis.setting(raw, tree))
        return tree

    def start(self) -> dict[str, Any]:
        """Shown parameters of the base recipe with the uniform mixture, as far as in the space."""
        tree = self.base.to_json()
        shown: dict[str, Any] = {}
        for axis in self.axes:
            shown |= axis.natural(get(tree, axis.path))
        return shown

    def natural(self) -> dict[str, Any]:
        """The start with each source weighing in proportion to its size.

        Raises ConfigError where no mixture varies, or the size of a source is not given.
        """
        sources = self.base.data.sources
        mixture = next((axis for axis in self.axes if isinstance(axis, MixtureAxis)), None)
        if mixture is None:
            raise ConfigError("natural: no mixture varies. Leave it out.")
        sizes: dict[str, int] = {}
        for name in mixture.simplex.names:
            size = sources[name].size
            if size is None:
                raise ConfigError(
                    f"natural: the size of '{name}' is not known: {how_to_size(name)}"
                )
            sizes[name] = size
        weights = mixture.simplex.natural(sizes)
        return self.start() | {f"{mixture.short}/{name}": w for name, w in weights.items()}

    def point(self, given: Mapping[str, Any] | str) -> Mapping[str, Any]:
        """A start point as the recipe gives it: what people see, or the word `natural`."""
        return self.natural() if isinstance(given, str) else given


def parse_space(
    base: JobSpec, space: Mapping[str, Any], workers: int = 1
) -> tuple[Space, list[Mistake]]:
    """The space and every mistake in it, each at its place under 'space'.

    workers: the number of ranks where the space does not vary it.
    """
    start = searched(base, workers)
    parser = SpaceParser(start)
    axes = parser.parse(space)
    found = Space(start, tuple(axes))
    return found, parser.mistakes or _impossible(found)


def space_of(sweep: SweepSpec) -> Space:
    """The sweep's space. Raises ConfigError with the first mistake in it."""
    space, mistakes = parse_space(sweep.base, sweep.space, sweep.resources.workers)
    if mistakes:
        raise ConfigError(f"{sweep.name}: {dotted(mistakes[0].path)}: {mistakes[0].text}")
    return space


def suggest(space: Space, trial: Suggester) -> Raw:
    """Ask an Optuna trial for all raw parameters of the space."""
    return space.draw(trial)


def job_for(
    sweep: SweepSpec, raw: Mapping[str, Value], seed: int | None = None
) -> tuple[JobSpec, Shown]:
    """The job of raw parameters and what people see of them, e.g. {'mixture/tags': 0.2}."""
    return space_of(sweep).job(raw, seed)


def _impossible(space: Space) -> list[Mistake]:
    """Edges of the space that are no valid jobs, found by building each of them."""
    first: Raw = {}
    edges = [axis.extremes() for axis in space.axes]
    for edge in edges:
        first |= edge[0]
    mistakes: dict[str, Mistake] = {}
    for axis, edge in zip(space.axes, edges, strict=True):
        for raw in edge:
            try:
                space.job({**first, **raw})
            except ConfigError as error:
                place, _, text = str(error).partition(": ")
                if place == f"space.{dotted(MIXTURE)}" and axis.path != MIXTURE:
                    # Every mixture has the same caps, so none is a job at this edge.
                    text = f"where {_told(raw)}: {text}"
                elif not place.startswith(f"space.{dotted(axis.path)}"):
                    continue
                mistakes.setdefault(place, Mistake(tuple(place.split(".")), text))
    return list(mistakes.values())


def _told(raw: Raw) -> str:
    return " and ".join(f"{name} is {value}" for name, value in raw.items())
