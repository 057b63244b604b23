"""One trial in full, for `mirsweep show`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.layout import kept_checkpoint
from orchestrator.state import TrialView
from orchestrator.views.leaderboard import state_text
from orchestrator.views.text import (
    MIXTURE,
    count,
    duration,
    number,
    percent,
    plus_minus,
    setting,
    weights,
)


def render_trial(trial: TrialView, folder: Path) -> RenderableType:
    """State and reason, settings, the table of scores, the checkpoint."""
    head = Text.assemble(
        (f"trial {trial.number}", "bold"), "   ", state_text(trial), "   ",
        f"{count(trial.samples)} of {count(trial.budget)} samples, attempt {trial.attempt}, "
        f"{duration(trial.seconds)} running",
    )  # fmt: skip
    parts: list[RenderableType] = [head]
    if trial.waiting:
        parts.append(Text(f"waiting: {trial.waiting}", style="yellow"))
    if trial.reason:
        parts.append(Text(trial.reason, style="yellow"))
    if trial.feasible is False:
        parts.append(Text(f"does not count: {trial.violation}", style="red"))
    parts += [Text(), _settings(trial)]
    if trial.scores:
        parts += [Text(), _scores(trial)]
    for reason, skipped in trial.skipped.items():
        parts.append(Text(f"skipped {count(skipped)} samples, {reason}", style="dim"))
    if trial.checkpoint:
        kept = kept_checkpoint(folder, trial)
        parts += [Text(), Text(f"checkpoint: {kept or 'none is kept, see `retention`'}")]
    return Group(*parts)


def _settings(trial: TrialView) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    for name, value in trial.params.items():
        if not name.startswith(MIXTURE):
            table.add_row(escape(name), escape(setting(value)))
    for source, share in weights(trial.params).items():
        table.add_row(escape(f"{MIXTURE}{source}"), percent(share))
    return table


def _scores(trial: TrialView) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("samples", "MIR", "counts", "validation loss", "wrong picture", "gap"):
        table.add_column(name, justify="right")
    for index, scored in enumerate(trial.scores):
        guard = scored.guard
        feasible = trial.counted[index] if index < len(trial.counted) else None
        table.add_row(
            count(scored.samples),
            plus_minus(scored.mir["mir"], scored.mir["standard_error"]),
            {True: "yes", False: "no", None: "-"}[feasible],
            number(guard.validation_loss),
            number(guard.wrong_loss),
            plus_minus(guard.gap, guard.gap_error),
        )
    return table
