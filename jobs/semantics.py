"""Which meaning a job's numbers have: what the same job file and seed end in."""

from __future__ import annotations

SEMANTICS = 3
"""Counted up by every change after which a job would end with other numbers: the order of the data,
what decays and at which rate what learns, norms of the projector, the random draws. Not for other
last bits, as of another kernel or number of ranks.

0: before it was written down, so whatever a version up to then did.
1: the first that checkpoints and MLflow (tag `mirsweep.semantics`) name.
2: `data.group_by_length` sees a source without repeats until its epoch ends: where an epoch begins
   within a window its samples come in another order.
3: entries of LLaVA's lists that have no picture are no samples.
"""
_CONCERNED = {
    2: "with data.group_by_length",
    3: "with entries of LLaVA's lists that have no picture",
}


def named(began: int) -> str:
    """Those of a run that began with `began` and is trained by this code."""
    return str(SEMANTICS) if began == SEMANTICS else f"began with {began}, goes on with {SEMANTICS}"


def warning_of(where: str, began: int) -> str | None:
    """What to say of a checkpoint whose run began with `began`; None where it is as today's."""
    if began == SEMANTICS:
        return None
    said = "was begun before training semantics were written down: it may end"
    if began:
        concerned = [jobs for since, jobs in _CONCERNED.items() if since > began]
        which = " or ".join(concerned) or "it may be that"
        said = f"began with training semantics {began}, this is {SEMANTICS}: {which} it ends"
    return (
        f"{where}: {said} with other numbers than either version alone (jobs/semantics.py); start "
        "anew in another folder where that matters"
    )
