"""What a data check found, as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.data_facts import DataFacts, SourceFacts
from orchestrator.views.text import count, percent


def render_data(facts: DataFacts) -> RenderableType:
    """A line a source, then what deserves a look: bad samples, repeats, overlap."""
    parts: list[RenderableType] = [_overview(facts)]
    for title, rows in sections(facts):
        parts += [Text(), Text(title, style="bold")]
        parts += [Text(f"  {row}") for row in rows]
    return Group(*parts)


def sections(facts: DataFacts) -> list[tuple[str, list[str]]]:
    """What was found beside the numbers; sections without a finding are left out."""
    found = (
        ("cannot be used", [row for source in facts.sources for row in _bad(source, facts)]),
        ("left out", [row for source in facts.sources for row in _left_out(source)]),
        ("stands several times", [row for source in facts.sources for row in _repeats(source)]),
        (
            "in training and in validation",
            [row for source in facts.sources for row in _overlap(source)],
        ),
    )
    return [(title, rows) for title, rows in found if rows]


HEADINGS = ("source", "samples", "bad", "pictures (pixels)", "captions", "cut",
            "repeated picture", "repeated caption", "in other sources")  # fmt: skip


def cells(source: SourceFacts, unit: str) -> tuple[str, ...]:
    """One source under HEADINGS."""
    if source.error:
        return (source.name, "-", "-", source.error, "", "", "", "", "")
    samples = count(source.samples)
    if source.read < source.samples:
        samples = f"{count(source.read)} of {samples}"
    good = max(1, source.read - source.bad_count)
    return (
        source.name,
        samples,
        _share(source.bad_count, source.read),
        _sizes(source),
        f"{_range(source.lengths)} {unit}",
        _share(source.cut, good) if unit == "tokens" else "-",
        _share(source.same_picture.samples, good),
        _share(source.same_caption.samples, good),
        _share(source.elsewhere, good) if source.training else "",
    )


def _overview(facts: DataFacts) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in HEADINGS:
        table.add_column(name)
    for source in facts.sources:
        table.add_row(*(escape(cell) for cell in cells(source, facts.unit)))
    return table


def _sizes(source: SourceFacts) -> str:
    if not source.widths:
        return "-"
    (w0, _, w, _, w1), (h0, _, h, _, h1) = source.widths, source.heights
    if (w0, h0) == (w1, h1):
        return f"all {w} x {h}"
    return f"{w} x {h} ({w0} to {w1} x {h0} to {h1})"


def _range(values: Sequence[int]) -> str:
    if not values:
        return "-"
    least, _, median, _, most = values
    return f"{median} ({least} to {most})" if least < most else str(median)


def _share(part: int, whole: int) -> str:
    """'12 (0.5 %)'; '0' where there are none."""
    return f"{count(part)} ({percent(part / max(1, whole))})" if part else "0"


def _bad(source: SourceFacts, facts: DataFacts) -> list[str]:
    ordered = sorted(source.bad.items(), key=lambda item: -item[1][0])
    rows = [
        f"{source.name}: {reason}: {count(number)}, e.g. {', '.join(examples)}"
        for reason, (number, examples) in ordered
    ]
    limit = facts.weight_limit(source)
    if limit is not None:
        rows.append(f"{source.name}: ends a job in which it weighs more than {limit:.2g}")
    return rows


def _left_out(source: SourceFacts) -> list[str]:
    entries = source.without_picture
    return [f"{source.name}: {count(entries)} entries have no picture"] if entries else []


def _repeats(source: SourceFacts) -> list[str]:
    kinds = (("picture", source.same_picture), ("caption", source.same_caption))
    return [
        f"{source.name}: one {kind} {found.examples[0]}" for kind, found in kinds if found.examples
    ]


def _overlap(source: SourceFacts) -> list[str]:
    return [
        f"{source.name}: {count(found.samples)} of {count(source.read)} pictures are also in "
        f"{name}, e.g. {found.examples[0]}"
        for name, found in source.in_training.items()
    ]
