"""Replays as a table for the terminal and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from orchestrator.replay.compare import Policy, hours_to_target, quartiles
from orchestrator.views.text import number

_COLOURS = ("#888888", "#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626")


def replay_table(policies: Sequence[Policy], unit: str) -> Table:
    """One line a policy: what it found, what it used, when it was near the best."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("policy", "best, median (quartiles)", f"{unit} used", "saved"):
        table.add_column(title)
    table.add_column(f"{unit} to within 1 % of the best recorded")
    for policy in policies:
        table.add_row(*cells(policy))
    return table


def cells(policy: Policy) -> list[str]:
    """The texts of one line."""
    best = [outcome.best for outcome in policy.outcomes if outcome.best is not None]
    used = [outcome.ledger.used for outcome in policy.outcomes]
    saved = [outcome.ledger.saved for outcome in policy.outcomes]
    reach = hours_to_target(policy)
    share = f"reached in {policy.found} of {len(policy.outcomes)} replays"
    return [
        policy.name,
        _spread(quartiles(best)) if best else "none counts",
        number(quartiles(used)[1]),
        number(quartiles(saved)[1]),
        share if reach is None else f"{_spread(reach)}, {share}",
    ]


def _spread(quarters: tuple[float, float, float]) -> str:
    low, middle, high = ("never" if value == math.inf else number(value) for value in quarters)
    return f"{middle} ({low} to {high})"


def replay_picture(policies: Sequence[Policy], unit: str, label: str, path: Path) -> None:
    """Best so far against device-hours: the median of all replays, with its quartiles."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    end = max(outcome.ledger.used for policy in policies for outcome in policy.outcomes)
    grid = [end * i / 200 for i in range(201)]
    for policy, colour in zip(policies, _COLOURS * len(policies), strict=False):
        bands = [_band(policy, hours) for hours in grid]
        axes.plot(grid, [band[1] for band in bands], color=colour, label=policy.name)
        low, high = [band[0] for band in bands], [band[2] for band in bands]
        axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(policies[0].outcomes[0].target, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel(unit)
    axes.set_ylabel(f"best {label} so far, of trials that count")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _band(policy: Policy, hours: float) -> tuple[float, float, float]:
    values = []
    for outcome in policy.outcomes:
        known = [value for at, value in outcome.course if at <= hours]
        values.append(known[-1] if known else math.nan)
    if any(math.isnan(value) for value in values):
        return math.nan, math.nan, math.nan
    return quartiles(values)
