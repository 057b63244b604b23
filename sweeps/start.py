"""Points that a recipe fixes beforehand: can the space have them?"""

from __future__ import annotations

from math import prod

from mir.errors import ConfigError
from sweeps.mistakes import Mistake
from sweeps.space import space_of
from sweeps.spec import SweepSpec


def point_mistakes(sweep: SweepSpec) -> list[Mistake]:
    """Start points outside the space, and grids with fewer points than the budget has trials."""
    space, study = space_of(sweep), sweep.study
    mistakes = []
    for i, point in enumerate(study.start):
        try:
            space.encode(space.point(point))
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
