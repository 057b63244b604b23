"""The axis of named alternatives, each with settings of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mir.errors import ConfigError
from sweeps.axes import Axis, Path, Raw, Shown, Suggester, Value, get, product, put
from sweeps.axis_values import one_hot


@dataclass(frozen=True)
class Branch:
    """One alternative: a plain value or dictionary, and what varies inside it."""

    template: Any
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class BranchAxis:
    """One of several named alternatives; only the chosen one's parameters are drawn."""

    path: Path
    raw: str
    short: str
    branches: Mapping[str, Branch]

    def draw(self, trial: Suggester) -> Raw:
        """Ask for the branch, then for what varies inside it."""
        chosen = trial.suggest_categorical(self.raw, tuple(self.branches))
        drawn: Raw = {self.raw: chosen}
        for axis in self.branches[chosen].axes:
            drawn |= axis.draw(trial)
        return drawn

    def setting(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> Any:
        """The branch's value with its own settings filled in."""
        branch = self._chosen(raw)
        value = copy.deepcopy(branch.template)
        for axis in branch.axes:
            put(value, axis.path, axis.setting(raw, job))
        return value

    def shown(self, raw: Mapping[str, Value], setting: Any) -> Shown:
        """The branch's name, and what varies inside it."""
        shown: Shown = {self.short: str(raw[self.raw])}
        for axis in self._chosen(raw).axes:
            shown |= axis.shown(raw, get(setting, axis.path))
        return shown

    def encode(self, shown: Mapping[str, Any]) -> Raw:
        """The branch and what is given of its settings."""
        if self.short not in shown:
            return {}
        name = shown[self.short]
        if name not in self.branches:
            known = ", ".join(self.branches)
            raise ConfigError(f"{self.short}: no such branch {name!r}. Known: {known}.")
        raw: Raw = {self.raw: name}
        for axis in self.branches[name].axes:
            raw |= axis.encode(shown)
        return raw

    def natural(self, setting: Any) -> dict[str, Any]:
        """The branch whose fixed settings agree with the field's value; nothing if none does."""
        for name, branch in self.branches.items():
            if _agrees(branch.template, setting):
                shown = {self.short: name}
                for axis in branch.axes:
                    shown |= axis.natural(get(setting, axis.path))
                return shown
        return {}

    def names(self) -> list[str]:
        """The branch's name, and every branch's own."""
        inner = [name for b in self.branches.values() for axis in b.axes for name in axis.names()]
        return [self.short, *dict.fromkeys(inner)]

    def extremes(self) -> list[Raw]:
        """Every branch, with its own settings at their edges, one at a time."""
        found: list[Raw] = []
        for name, branch in self.branches.items():
            edges = [axis.extremes() for axis in branch.axes]
            first: Raw = {self.raw: name}
            for edge in edges:
                first |= edge[0]
            found.append(first)
            found.extend(first | other for edge in edges for other in edge[1:])
        return found

    def grid(self, levels: int) -> list[Raw]:
        """Every branch with every combination of the places inside it."""
        found: list[Raw] = []
        for name, branch in self.branches.items():
            found += product([{self.raw: name}], *(axis.grid(levels) for axis in branch.axes))
        return found

    def coordinates(self, raw: Mapping[str, Value], job: Mapping[str, Any]) -> list[float]:
        """Which branch, then what varies inside each; inside the others, the middle."""
        found = one_hot([name == raw.get(self.raw) for name in self.branches])
        for branch in self.branches.values():
            for axis in branch.axes:
                found += axis.coordinates(raw, job)
        return found

    def _chosen(self, raw: Mapping[str, Value]) -> Branch:
        return self.branches[str(raw[self.raw])]


def _agrees(template: Any, setting: Any) -> bool:
    if isinstance(template, Mapping) and isinstance(setting, Mapping):
        return all(_agrees(value, setting.get(name)) for name, value in template.items())
    return bool(template == setting)
