"""From the recipe's nested `space` to axes, collecting every mistake with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from jobs.spec import Frozen
from sweeps.axes import Axis, Path, get, put
from sweeps.axis_branch import Branch, BranchAxis
from sweeps.axis_mixture import MixtureAxis
from sweeps.axis_values import ChoiceAxis, RangeAxis
from sweeps.document import FieldPath, dotted
from sweeps.fields import child_type, is_mapping, model_of, number_kind, type_at
from sweeps.mistakes import Mistake, from_pydantic, no_such, show
from sweeps.mixtures import Simplex
from sweeps.searched import Searched
from sweeps.spec import Branches, Choices, Mixture, Range

MIXTURE: Path = ("data", "mixture")
EQUAL_IN_A_STUDY: tuple[Path, ...] = (
    ("score",), ("data", "validation"), ("data", "validation_samples"),
)  # fmt: skip
_LEAVES = frozenset({"low", "high", "choices", "branches"})
_HOW = "give low and high, choices, or branches"
Leaf = TypeVar("Leaf", bound=Frozen)


@dataclass
class SpaceParser:
    """Walks one space. `mistakes` fills up; axes are only meaningful while it is empty."""

    base: Searched
    mistakes: list[Mistake] = field(default_factory=list)

    def parse(self, space: Mapping[str, Any]) -> list[Axis]:
        """All axes, in the order of the file, with final short names."""
        if not space:
            self._refuse((), "is empty: name a field to vary, such as optim.learning_rate.")
        found = [(path, leaf) for path, leaf in self._leaves(space, ())]
        shorts = short_names([path for path, _ in found])
        axes = []
        for path, leaf in found:
            raw = ".".join(path)
            axis = self._axis(leaf, path, path, raw, shorts[path], ("space", *path))
            axes += [] if axis is None else [axis]
        return axes

    def _refuse(self, path: FieldPath, text: str) -> None:
        self.mistakes.append(Mistake(("space", *path), text))

    def _leaves(self, node: Mapping[str, Any], path: Path) -> list[tuple[Path, Any]]:
        found: list[tuple[Path, Any]] = []
        for name, value in node.items():
            here = (*path, name)
            if not self._exists(here):
                continue
            if here in EQUAL_IN_A_STUDY:
                self._refuse(here, "is equal for a whole study, so scores can be compared. "
                                   f"Set it in base.{dotted(here)}.")  # fmt: skip
            elif not isinstance(value, Mapping):
                how = "write {mixture: all}" if here == MIXTURE else _HOW
                self._refuse(here, f"{show(value)} does not vary: {how}, or set it in "
                                   f"base.{dotted(here)}.")  # fmt: skip
            elif here == MIXTURE or _is_leaf(value):
                found.append((here, value))
            elif model_of(type_at(Searched, here)) or is_mapping(type_at(Searched, here)):
                found += self._inside(value, here)
            else:
                self._refuse(here, f"does not say how it varies: {_HOW}.")
        return found

    def _inside(self, value: Mapping[str, Any], here: Path) -> list[tuple[Path, Any]]:
        base = get(self.base.to_json(), here)
        if not isinstance(base, Mapping):
            self._refuse(here, f"base.{dotted(here)} is {show(base)}, so it has no fields to vary: "
                               "give branches, or write its fields in base.")  # fmt: skip
            return []
        return self._leaves(value, here)

    def _exists(self, path: Path) -> bool:
        parent = type_at(Searched, path[:-1])
        if child_type(parent, path[-1]) is None:
            model = model_of(parent)
            known = list(model.model_fields) if model else []
            self._refuse(path, no_such("field of a job", path[-1], known))
            return False
        if is_mapping(parent):
            names = get(self.base.to_json(), path[:-1])
            if path[-1] not in names:
                self._refuse(path, no_such("name in base", path[-1], names))
                return False
        return True

    def _axis(
        self, leaf: Any, full: Path, path: Path, raw: str, short: str, place: FieldPath
    ) -> Axis | None:
        """The axis of one leaf. full: its field from the job down; path: from its branch down."""
        if full == MIXTURE:
            return self._mixture(leaf, path, raw, short, place)
        annotation = type_at(Searched, full)
        if "branches" in leaf:
            return self._branches(leaf, full, path, raw, short, place)
        if "choices" in leaf:
            choices = self._leaf(Choices, leaf, place)
            return (
                None
                if choices is None
                else self._choices(choices, path, raw, short, place, annotation)
            )
        spec = self._leaf(Range, leaf, place)
        if spec is None:
            return None
        kind = number_kind(annotation)
        if kind is None:
            self.mistakes.append(Mistake(place, "takes no number: give choices or branches."))
        elif kind == "int" and not spec.integer:
            self.mistakes.append(Mistake(place, "takes whole numbers: add 'integer: true'."))
        return RangeAxis(path, raw, short, spec)

    def _leaf(self, model: type[Leaf], value: Any, place: FieldPath) -> Leaf | None:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.mistakes += from_pydantic(error, model, value, place)
            return None

    def _choices(
        self, spec: Choices, path: Path, raw: str, short: str, place: FieldPath, annotation: Any
    ) -> Axis | None:
        if number_kind(annotation) is None:
            return ChoiceAxis(path, raw, short, spec.choices)
        wrong = [value for value in spec.choices if isinstance(value, bool)]
        if wrong:
            self.mistakes.append(Mistake((*place, "choices"), f"{wrong[0]} is not a number."))
            return None
        try:
            numbers = tuple(float(v) if isinstance(v, str) else v for v in spec.choices)
        except ValueError:
            text = f"{show(list(spec.choices))} are not all numbers."
            self.mistakes.append(Mistake((*place, "choices"), text))
            return None
        return ChoiceAxis(path, raw, short, numbers)

    def _mixture(
        self, leaf: Any, path: Path, raw: str, short: str, place: FieldPath
    ) -> Axis | None:
        spec = self._leaf(Mixture, leaf, place)
        if spec is None:
            return None
        sources = self.base.data.sources
        asked = spec.fixed if spec.mixture == "all" else (*spec.mixture, *spec.fixed)
        unknown = [name for name in asked if name not in sources]
        if unknown:
            self.mistakes.append(Mistake(place, f"'{unknown[0]}': " + no_such(
                "source", unknown[0], sources)))  # fmt: skip
            return None
        chosen = tuple(sources) if spec.mixture == "all" else spec.mixture
        names = tuple(name for name in dict.fromkeys(chosen) if name not in spec.fixed)
        others = tuple(name for name in sources if name not in names and name not in spec.fixed)
        sized = [name for name in (*names, *spec.fixed) if sources[name].size is None]
        if spec.max_epochs is not None and sized:
            text = f"needs the size of every source: {how_to_size(sized[0])}."
            self.mistakes.append(Mistake((*place, "max_epochs"), text))
            return None
        try:
            simplex = Simplex(names=names, floor=spec.floor, fixed=spec.fixed)
        except ValueError as error:
            self.mistakes.append(Mistake(place, f"{error}."))
            return None
        return MixtureAxis(path, raw, short, simplex, others, spec.max_epochs)

    def _branches(
        self, leaf: Any, full: Path, path: Path, raw: str, short: str, place: FieldPath
    ) -> Axis | None:
        spec = self._leaf(Branches, leaf, place)
        if spec is None:
            return None
        branches = {}
        for name, value in spec.branches.items():
            here = (*place, "branches", name)
            branches[name] = self._branch(value, full, f"{raw}/{name}", short, here)
        return BranchAxis(path, raw, short, branches)

    def _branch(self, value: Any, full: Path, raw: str, short: str, place: FieldPath) -> Branch:
        """A branch's constants become its template; what varies in it becomes its axes."""
        if not isinstance(value, Mapping):
            return Branch(value)
        template: dict[str, Any] = {}
        axes: list[Axis] = []
        todo: list[tuple[Path, Any]] = [((name,), inner) for name, inner in value.items()]
        while todo:
            path, inner = todo.pop(0)
            annotation = type_at(Searched, (*full, *path))
            if annotation is None:
                model = model_of(type_at(Searched, (*full, *path[:-1])))
                text = no_such("field", path[-1], list(model.model_fields) if model else [])
                self.mistakes.append(Mistake((*place, *path), text))
            elif isinstance(inner, Mapping) and _is_leaf(inner):
                label = ".".join(path)
                axis = self._axis(inner, (*full, *path), path, f"{raw}/{label}",
                                  f"{short}/{label}", (*place, *path))  # fmt: skip
                axes += [] if axis is None else [axis]
            elif isinstance(inner, Mapping):
                put(template, path, {})
                todo += [((*path, name), deeper) for name, deeper in inner.items()]
            else:
                put(template, path, inner)
        return Branch(template, tuple(axes))


def how_to_size(source: str) -> str:
    """What to do where the number of a source's samples is needed."""
    return (
        f"set base.data.sources.{source}.size to its number of samples (`mirsweep plan` says how "
        "many there are if it is wrong)"
    )


def _is_leaf(value: Mapping[str, Any]) -> bool:
    return bool(_LEAVES & set(value))


def short_names(paths: list[Path]) -> dict[Path, str]:
    """The shortest ending of each path that no other path shares."""
    shorts = {}
    for path in paths:
        for length in range(1, len(path) + 1):
            ending = path[-length:]
            if sum(other[-length:] == ending for other in paths) == 1:
                break
        shorts[path] = ".".join(ending)
    return shorts
