"""Whether two recipes are the same study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from jobs.spec.base import first_mistake
from sweeps.spec import SweepSpec

MAY_CHANGE = ("budget", "resources", "tracking", "retention")


def identity(sweep: SweepSpec) -> dict[str, Any]:
    """What makes two sweeps the same study: all but what may change and where it is stored."""
    recipe = sweep.model_dump(mode="json", exclude=set(MAY_CHANGE))
    del recipe["study"]["storage"]
    return recipe


def recorded_change(recorded: Mapping[str, Any], sweep: SweepSpec) -> str | None:
    """As `first_change`, from an identity that was written down, perhaps by an earlier version.

    It is read by today's schema: a field that did not exist then has its default, which means
    what was before, so a study outlives the fields that are added to recipes.
    """
    try:
        before = SweepSpec.model_validate(recorded)
    except ValidationError as error:
        place, words = first_mistake(error)
        return f"{place}: written by another version of mirsweep ({words})"
    return first_change(identity(before), identity(sweep))


def first_change(before: Any, now: Any, path: str = "") -> str | None:
    """'optim.learning_rate.low: 0.001 became 0.01' for the first difference, None without one."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            inner = f"{path}.{name}".lstrip(".")
            change = first_change(before.get(name), now.get(name), inner)
            if change is not None:
                return change
        return None if list(before) == list(now) else f"{path}: fields changed their order"
    return None if before == now else f"{path}: {before!r} became {now!r}"
