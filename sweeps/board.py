"""Who stood where at how many samples; no question costs more with more trials than a search."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.objective import Direction

Entry = tuple[float, int, float]  # value, trial, standard error


@dataclass(frozen=True)
class Point:
    """A feasible score past min_samples: the objective and its standard error."""

    samples: int
    value: float
    error: float


@dataclass(frozen=True)
class Group:
    """Some of the trials; equal keys mean the same ones."""

    key: tuple[object, ...]
    holds: Callable[[int], bool]


EVERYONE = Group((), lambda _number: True)


class Ranking(list[Entry]):
    """Entries by rising value; `values` are theirs, side by side for who reads them all."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        super().__init__(entries)
        self.values = array("d", [entry[0] for entry in self])

    def add(self, entry: Entry) -> None:
        """One more, at its place."""
        place = bisect_left(self, entry)
        self.insert(place, entry)
        self.values.insert(place, entry[0])

    def drop(self, entry: Entry) -> None:
        """One that is there goes."""
        place = bisect_left(self, entry)
        del self[place], self.values[place]

    def without(self, entry: Entry) -> Ranking:
        """All but one that is there."""
        rest = Ranking()
        rest.extend(self)
        rest.values.extend(self.values)
        rest.drop(entry)
        return rest


class Board:
    """The points of many trials, ranked wherever they were measured."""

    def __init__(self) -> None:
        self._series: dict[int, array[float]] = {}
        self._here: dict[int, Ranking] = {}
        self._rungs: dict[tuple[int, tuple[object, ...]], _Rung] = {}

    @classmethod
    def of(cls, trials: Mapping[int, Iterable[Point]]) -> Board:
        """A board with all points of these trials."""
        board = cls()
        for number, points in trials.items():
            for point in points:
                board.add(number, point)
        return board

    def add(self, number: int, point: Point) -> None:
        """One more point of a trial; it replaces those at its samples and beyond."""
        self.cut(number, point.samples)
        known = self._series.setdefault(number, array("d"))
        known.extend((point.samples, point.value, point.error))
        entry = (point.value, number, point.error)
        self._here.setdefault(point.samples, Ranking()).add(entry)
        for (step, _), rung in self._rungs.items():
            if step <= point.samples and rung.group.holds(number) and number not in rung.reached:
                rung.add(entry, point.samples)

    def cut(self, number: int, samples: int) -> None:
        """Forget a trial's points at so many samples and beyond: it goes that way again."""
        known = self._series.get(number)
        while known and known[-3] >= samples:
            at, value, error = int(known[-3]), known[-2], known[-1]
            del known[-3:]
            self._here[at].drop((value, number, error))
            for rung in self._rungs.values():
                if rung.reached.get(number) == (at, (value, number, error)):
                    rung.drop(number)

    def at(self, samples: int, slack: int, least: int, but: int) -> Ranking:
        """The newest points at or before `samples`, none a whole slack before nor below `least`.

        Ranked by value; without trial `but`.
        """
        low = max(samples - slack + 1, least)
        keys = [key for key in self._here if low <= key <= samples]
        found = [entries for key in keys if (entries := self._here[key])]
        if len(found) == 1:
            # Trials that score at the same samples need no merging: by far the usual case.
            return self._without(found[0], but, keys)
        newest: dict[int, Entry] = {}
        for key in sorted(keys):
            newest.update((entry[1], entry) for entry in self._here[key])
        newest.pop(but, None)
        return Ranking(sorted(newest.values()))

    def _without(self, entries: Ranking, number: int, keys: Sequence[int]) -> Ranking:
        known = self._series.get(number, ())
        for place in range(0, len(known), 3):
            if int(known[place]) in keys:
                return entries.without((known[place + 1], number, known[place + 2]))
        return entries

    def rung(self, step: int, group: Group, least: int, but: int) -> Ranking:
        """The first point of each trial at or past a step, those below `least` left out."""
        key = (max(step, least), group.key)
        if key not in self._rungs:
            self._rungs[key] = self._climbed(key[0], group)
        rung = self._rungs[key]
        if but in rung.reached:
            return rung.entries.without(rung.reached[but][1])
        return rung.entries

    def _climbed(self, step: int, group: Group) -> _Rung:
        rung = _Rung(group)
        for number, known in self._series.items():
            if not group.holds(number):
                continue
            for place in range(0, len(known), 3):
                if known[place] >= step:
                    rung.add((known[place + 1], number, known[place + 2]), int(known[place]))
                    break
        return rung


class _Rung:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.entries = Ranking()
        self.reached: dict[int, tuple[int, Entry]] = {}
        """By trial: at how many samples it reached the rung, and its entry there."""

    def add(self, entry: Entry, samples: int) -> None:
        self.entries.add(entry)
        self.reached[entry[1]] = samples, entry

    def drop(self, number: int) -> None:
        self.entries.drop(self.reached.pop(number)[1])


def quantile(entries: Sequence[Entry], share: float) -> tuple[float, float]:
    """The interpolated quantile, and its standard error from those of the points around it."""
    place = share * (len(entries) - 1)
    below, above = entries[math.floor(place)], entries[math.ceil(place)]
    part = place - math.floor(place)
    # From the nearer end, as numpy does, so that equal values give that very value.
    step = above[0] - below[0]
    value = below[0] + step * part if part < 0.5 else above[0] - step * (1 - part)
    if below is above:
        return value, below[2]
    return value, math.hypot((1 - part) * below[2], part * above[2])


def goes_on(entries: Sequence[Entry], mine: Entry, factor: int, direction: Direction) -> Entry:
    """The last of the best 1 in `factor` of all and me, at least one of them."""
    count = max((len(entries) + 1) // factor, 1)
    best = entries[:count] if direction == "minimize" else entries[-count:]
    ranked = sorted([*best, mine], reverse=direction == "maximize")
    return ranked[count - 1]
