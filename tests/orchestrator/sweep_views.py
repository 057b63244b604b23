"""Sweeps as values for the tests of views, reports and commands; the curves mimic design section 3.

MIR rises before it falls; a too high rate collapses the projector, whose deceptively low MIR is
infeasible because the validation loss stays above its start.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

from jobs.events import GuardReading, Scored
from jobs.spec import DataSpec, DeepspeedSpec, JobSpec, OptimSpec, ScoreSpec, SourceSpec
from mir.report import LayerReport, MirReport, Protocol
from orchestrator.state import StepPoint, SweepView, TrialState, TrialView
from sweeps.spec import BudgetSpec, SweepSpec

SOURCES = ("detailed", "short", "tags", "mismatched", "glyphs")
LAYERS = 6
SAMPLES, CADENCE = 4096, 512
START_MIR, START_LOSS = 3.68, 7.84
OPENED = 1_790_000_000.0


def make_spec(trials: int = 16, name: str = "quickstart") -> SweepSpec:
    """A recipe over mixture, learning rate and MoCa, as a value."""
    source = {name: SourceSpec(kind="scenes", style=name, size=2000) for name in SOURCES}
    base = JobSpec(
        data=DataSpec(sources=source, validation=SourceSpec(style="detailed", split="validation")),
        optim=OptimSpec(samples=SAMPLES, global_batch=16),
        deepspeed=DeepspeedSpec(zero_stage=2),
        score=ScoreSpec(every_samples=CADENCE),
    )
    space = {
        "data": {"mixture": {"mixture": "all"}},
        "optim": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        "model": {
            "moca": {
                "branches": {
                    "off": None,
                    "on": {"init_std": {"low": 1e-3, "high": 1e-1, "log": True}},
                }
            }
        },
    }
    return SweepSpec(name=name, base=base, space=space, budget=BudgetSpec(trials=trials))


def make_report(mir: float, error: float | None = 0.04) -> MirReport:
    """A score of six layers whose distances add up to 10 ** mir."""
    shares = [0.05, 0.1, 0.1, 0.15, 0.2, 0.4]
    total = 10**mir if math.isfinite(mir) else mir
    layers = tuple(
        LayerReport(
            layer=i + 1, distance=total * share, share=share, text_scale=0.1,
            vision_tokens=3072, text_tokens=3000, vision_outliers=12, text_outliers=9,
        )
        for i, share in enumerate(shares)
    )  # fmt: skip
    protocol = Protocol(variant="exact", pairs=48, pairs_digest="abc", layers=tuple(range(1, 7)))
    return MirReport(mir=mir, standard_error=error, protocol=protocol, layers=layers)


def make_scored(samples: int, mir: float, loss: float, gap: float) -> Scored:
    """A score with its guard reading."""
    guard = GuardReading(validation_loss=loss, wrong_loss=loss + gap, gap=gap, gap_error=0.03)
    return Scored(samples=samples, mir=make_report(mir).to_json(), guard=guard, seconds=0.8)


def make_trial(
    number: int,
    *,
    rate: float = 3e-3,
    quality: float = 0.5,
    moca: bool = False,
    state: TrialState = TrialState.COMPLETE,
    samples: int = SAMPLES,
    reason: str = "",
    seed: int = 0,
) -> TrialView:
    """One trial. quality, 0 to 1, is the share of useful captions in its mixture."""
    rng = random.Random(1000 * seed + number)
    raw = [rng.expovariate(1.0) for _ in SOURCES]
    raw[0], raw[3] = 0.2 + 3 * quality, 0.05 + 2 * (1 - quality)
    weights = {name: value / sum(raw) for name, value in zip(SOURCES, raw, strict=True)}
    params: dict[str, float | int | str] = {"learning_rate": rate}
    params |= {f"mixture/{name}": weight for name, weight in weights.items()}
    params["moca"] = "on" if moca else "off"
    if moca:
        params["moca/init_std"] = 0.02
    collapsed = rate > 3e-2
    scores = tuple(
        _score_at(seen, rate, quality, moca, collapsed, rng)
        for seen in range(0, samples + 1, CADENCE)
    )
    steps = tuple(
        StepPoint(
            samples=seen,
            loss=START_LOSS * math.exp(-seen / 2500) + 1.5 + rng.gauss(0, 0.05),
            samples_per_second=80 + rng.gauss(0, 4),
        )
        for seen in range(16, samples + 1, 64)
    )
    spec = make_spec().base
    job = spec.model_copy(update={"optim": spec.optim.model_copy(update={"learning_rate": rate})})
    began = OPENED + 20.0 * number
    return TrialView(
        number=number, job=job, params=params, state=state, samples=samples, reason=reason,
        attempt=1, scores=scores, steps=steps, started=began,
        ended=began + samples / 80 if state.final else None,
        feasible=(not collapsed) if scores else None,
        counted=tuple(scored.samples == 0 or not collapsed for scored in scores),
        seconds=samples / 80,
        violation="validation loss 8.54 is above its start 7.84" if collapsed else "",
    )  # fmt: skip


def _score_at(
    seen: int, rate: float, quality: float, moca: bool, collapsed: bool, rng: random.Random
) -> Scored:
    share = seen / SAMPLES
    off = abs(math.log10(rate / 3e-3))
    if seen == 0:
        return make_scored(0, START_MIR, START_LOSS, 0.0)
    if collapsed:
        return make_scored(seen, 2.0 + 0.1 * rng.random(), START_LOSS + 0.7, -0.02)
    bump = 0.5 * math.exp(-(((share - 0.15) / 0.12) ** 2))
    drop = (1.0 * quality + 0.15 * moca + 0.5 - 0.35 * off) * (1 - math.exp(-3 * share))
    loss = 2.9 + 4.9 * math.exp(-5 * share) + 0.3 * off - 0.4 * quality
    gap = max(0.0, (0.7 * quality + 0.2 - 0.1 * off)) * share
    return make_scored(seen, START_MIR + bump - drop + rng.gauss(0, 0.03), loss, gap)


def make_view(trials: int = 14, budget: int = 16, running: bool = False) -> SweepView:
    """A mixed sweep: complete, stopped, infeasible, failed and, if asked for, open trials."""
    rng = random.Random(trials)
    made: dict[int, TrialView] = {}
    for number in range(trials):
        kind = number % 7
        rate = 10 ** rng.uniform(-3.6, -1.7)
        common = {"quality": rng.random(), "moca": number % 3 == 0}
        if kind == 2:
            made[number] = make_trial(
                number, rate=rate, **common, state=TrialState.PRUNED, samples=1536,
                reason="MIR 3.41 +/- 0.04 against a median of 2.90 +/- 0.03 at 1,536 samples",
            )  # fmt: skip
        elif kind == 4:
            made[number] = make_trial(
                number, rate=6e-2, **common, state=TrialState.PRUNED, samples=2048,
                reason="2 infeasible scores in a row: validation loss 8.54 is above its start 7.84",
            )  # fmt: skip
        elif kind == 6:
            made[number] = make_trial(
                number, rate=9e-2, **common, state=TrialState.FAILED, samples=512,
                reason="diverged: loss is nan at step 61",
            )  # fmt: skip
        else:
            made[number] = make_trial(number, rate=rate, **common)
    if running:
        last = trials - 1
        made[last - 1] = replace(
            make_trial(last - 1, samples=2048, state=TrialState.RUNNING), ended=None
        )
        made[last] = make_trial(last, samples=0, state=TrialState.QUEUED)
        made[last] = replace(made[last], scores=(), steps=(), started=None, feasible=None)
    ended = None if running else OPENED + 20.0 * trials + 60
    return SweepView(
        spec=make_spec(budget), trials=made, opened=OPENED, session=OPENED, ended=ended,
        updated=OPENED + 20.0 * trials + 60, code_version="0123abc",
    )  # fmt: skip
