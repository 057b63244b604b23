"""A recipe as people read it before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jobs.spec import DataSpec, SourceSpec
from orchestrator.budget import unit
from orchestrator.calibration import Estimate
from orchestrator.placement import Fit, job_slots, why_not
from orchestrator.ports import Capacity
from orchestrator.views.preview import Variant
from orchestrator.views.text import (
    MIXTURE,
    count,
    number,
    percent,
    setting,
    weights,
)
from sweeps.secrets import recorded
from sweeps.space import space_of
from sweeps.spec import SweepSpec


@dataclass(frozen=True)
class Where:
    """What the plan is held against: all that it has, and what is free of it now."""

    name: str
    capacity: Capacity
    free: Capacity


def plan_json(
    spec: SweepSpec,
    variants: Sequence[Variant],
    where: Where,
    found: Estimate | None = None,
) -> dict[str, Any]:
    """The plan for programs: recipe, sampled variants with whether they fit, and estimate."""
    return {
        "estimate": None if found is None else asdict(found),
        "recipe": recorded(spec).model_dump(mode="json"),
        "variants": [variant.shown for variant in variants],
        "fits": [asdict(_fit(spec, variant, where)) for variant in variants],
        "machine": {"nodes": [list(node) for node in where.capacity.nodes]},
        "jobs_at_once": job_slots(where.capacity, spec.resources),
    }


def render_plan(
    spec: SweepSpec,
    variants: Sequence[Variant],
    where: Where,
    found: Estimate | None = None,
) -> RenderableType:
    """All sections, each a heading with a small table."""
    sections: list[tuple[str, RenderableType]] = [
        ("sources", _sources(spec.base.data)),
        ("space", _facts(space_facts(spec.space))),
        ("budget", _facts(_budget(spec))),
        ("resources", _facts(_resources(spec, where))),
    ]
    if found is not None:
        sections.append(("estimate, if nothing is stopped early", _facts(found.lines())))
    if variants:
        sections.append((f"{len(variants)} sampled variants", _variants(spec, variants, where)))
    parts: list[RenderableType] = [Text(spec.name, style="bold")]
    for title, body in sections:
        parts += [Text(), Text(title, style="bold"), body]
    return Group(*parts)


def _facts(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    for name, value in rows:
        table.add_row(Text(f"  {name}", style="dim"), escape(value))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    for name in columns:
        table.add_column(escape(name))
    return table


def _sources(data: DataSpec) -> Table:
    table = _table("  source", "kind", "what", "samples", "weight before the search")
    for name, source in data.sources.items():
        table.add_row(
            escape(f"  {name}"), source.kind, escape(_what(source)),
            count(source.size) if source.size else "-", percent(data.weights[name]),
        )  # fmt: skip
    validation = data.validation
    table.add_row(
        "  (validation)", validation.kind, escape(_what(validation)),
        count(data.validation_samples), "",
    )  # fmt: skip
    return table


def _what(source: SourceSpec) -> str:
    return source.path or f"{source.style or 'default'} captions, {source.split}"


def space_facts(space: dict[str, Any], place: str = "") -> list[tuple[str, str]]:
    """Every searched field with what it ranges over, by dotted name."""
    rows: list[tuple[str, str]] = []
    for name, node in space.items():
        field = f"{place}{name}"
        if not isinstance(node, dict):
            rows.append((field, setting(node) if node is not None else "off"))
        elif "low" in node:
            scale = " (log)" if node.get("log") else ""
            rows.append(
                (field, f"{number(float(node['low']))} to {number(float(node['high']))}{scale}")
            )
        elif "choices" in node:
            rows.append((field, "one of " + ", ".join(str(c) for c in node["choices"])))
        elif isinstance(node.get("mixture"), str | list | tuple):
            rows.append((field, _mixture(node)))
        elif "branches" in node:
            rows.append((field, "one of " + ", ".join(map(str, node["branches"]))))
            for branch, inner in node["branches"].items():
                if isinstance(inner, dict):
                    rows += space_facts(inner, f"{field} [{branch}] ")
        else:
            rows += space_facts(node, f"{field}.")
    return rows


def _mixture(node: dict[str, Any]) -> str:
    chosen = node["mixture"]
    text = "weights of all sources" if chosen == "all" else "weights of " + ", ".join(chosen)
    if node.get("floor"):
        text += f", each at least {percent(float(node['floor']))}"
    if node.get("max_epochs"):
        text += f", at most {number(float(node['max_epochs']))} epochs a source"
    return text


def _budget(spec: SweepSpec) -> list[tuple[str, str]]:
    optim, stop = spec.base.optim, spec.stop
    most = spec.budget.trials * optim.steps * optim.global_batch
    scores = 1 + -(-optim.samples // spec.base.score.every_samples)
    share = spec.base.score.overhead_limit
    spared = "" if share >= 1 else f" or fewer, within {share:.0%} of its time"
    limit = "".join(f", at most {text}" for text in _limits(spec))
    rules = " and ".join(rule.rule for rule in stop.chain)
    rule = "none" if rules == "none" else f"{rules}, confidence {number(stop.confidence)}"
    return [
        ("trials", f"{spec.budget.trials}{limit}"),
        (
            "a full trial",
            f"{count(optim.samples)} samples, {optim.steps} steps of {optim.global_batch}",
        ),
        ("at most", f"{count(most)} samples, fewer by early stopping ({rule})"),
        (
            "scores a trial",
            f"{scores}{spared}, {spec.base.score.pairs} pairs, {spec.base.score.variant}",
        ),
        ("search", f"{spec.study.sampler} for {spec.study.objective}, seed {spec.study.seed}"),
        ("a score counts if", ", ".join(spec.study.guard.constraints) or "always"),
    ]


def _limits(spec: SweepSpec) -> list[str]:
    budget = spec.budget
    limits = (
        (budget.hours, "h"),
        (budget.samples, "samples"),
        (budget.gpu_hours, unit(spec.resources)),
        (budget.cost, f"at {spec.resources.price_per_hour} a device-hour"),
    )
    return [f"{number(float(value))} {name}" for value, name in limits if value is not None]


def _fit(spec: SweepSpec, variant: Variant, where: Where) -> Fit:
    return variant.fit(spec.resources, where.capacity, where.free)


def _resources(spec: SweepSpec, where: Where) -> list[tuple[str, str]]:
    wanted, machine = spec.resources, where.capacity
    sizes = sorted(set(space_of(spec).sizes()))
    ranks = " or ".join(map(str, sizes)) + (" rank" if sizes == [1] else " ranks")
    need = f"{ranks} of {number(wanted.cpus_per_worker)} CPU"
    if wanted.gpus_per_worker:
        need += f" and {number(wanted.gpus_per_worker)} GPU"
    need += "".join(f" and {number(n)} {name}" for name, n in wanted.custom.items())
    need += "" if wanted.spread == "pack" else f", {wanted.spread}"
    cpus = sum(node[0] for node in machine.nodes)
    gpus = sum(node[1] for node in machine.nodes)
    reason = why_not(machine, wanted)
    fit = f"{job_slots(machine, wanted)} at once"
    if reason is not None:
        fit = f"do not fit here: {reason}; give a cluster with --address"
    return [
        ("a job takes", f"{need}, ZeRO stage {spec.base.deepspeed.zero_stage}"),
        (f"{where.name} has", f"{number(cpus)} CPU, {number(gpus)} GPU"),
        ("jobs", fit),
    ]


def _variants(spec: SweepSpec, variants: Sequence[Variant], where: Where) -> Table:
    shown = [variant.shown for variant in variants]
    plain = list(dict.fromkeys(n for v in shown for n in v if not n.startswith(MIXTURE)))
    mixed = list(dict.fromkeys(n for v in shown for n in v if n.startswith(MIXTURE)))
    sources = [name.removeprefix(MIXTURE) for name in mixed]
    table = _table(*_indented(plain + sources), "fits")
    for variant, found in zip(shown, (_fit(spec, v, where) for v in variants), strict=True):
        cells = [setting(variant[name]) if name in variant else "-" for name in plain]
        shares = weights(variant)
        cells += [percent(shares[source]) if source in shares else "-" for source in sources]
        fits = f"{found.when}: {found.reason}" if found.reason else found.when
        table.add_row(*[escape(cell) for cell in [*_indented(cells), fits]])
    return table


def _indented(cells: Sequence[str]) -> list[str]:
    return [f"  {cells[0]}", *cells[1:]] if cells else []
