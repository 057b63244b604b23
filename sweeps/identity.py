"""Whether two recipes are the same study."""

from __future__ import annotations

from typing import Any

from sweeps.spec import SweepSpec

MAY_CHANGE = ("budget", "resources", "tracking", "retention")


def identity(sweep: SweepSpec) -> dict[str, Any]:
    """What makes two sweeps the same study: all but what may change and where it is stored."""
    recipe = sweep.model_dump(mode="json", exclude=set(MAY_CHANGE))
    del recipe["study"]["storage"]
    return recipe


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
