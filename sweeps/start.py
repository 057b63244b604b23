"""Points that a recipe fixes beforehand: can the space have them?"""

from __future__ import annotations

from contextlib import suppress
from math import prod

from mir.errors import ConfigError
from sweeps.draws import Stored
from sweeps.mistakes import Mistake
from sweeps.space import space_of
from sweeps.spec import SweepSpec


def point_mistakes(sweep: SweepSpec) -> list[Mistake]:
    """Start points outside the space or no valid jobs, and grids smaller than the budget's trials.

    What is left out of a point may make it a valid job or none, which its trial will say.
    """
    space, study = space_of(sweep), sweep.study
    mistakes = []
    for i, point in enumerate(study.start):
        try:
            raw = space.encode(space.point(point))
            with suppress(KeyError):
                space.job(space.draw(Stored(raw)))
        except ConfigError as error:
            mistakes.append(Mistake(("study", "start", i), str(error)))
    if study.sampler == "grid":
        size = prod(len(axis.grid(study.grid_levels)) for axis in space.axes)
        if size < sweep.budget.trials - 1:
            text = (
                f"{sweep.budget.trials} is more than the grid's {size} points and the start: "
                f"lower it to {size + 1}, or raise study.grid_levels."
            )
            mistakes.append(Mistake(("budget", "trials"), text))
    return mistakes
