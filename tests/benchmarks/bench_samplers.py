"""Which sampler finds a good variant with a small budget? Writes a Markdown table.

    python tests/benchmarks/bench_samplers.py --seeds 40 --out infra/benchmarks/samplers.md

A made-up study with the traps of design section 3: five sources, learning rate, MoCa as a branch
with an init_std of its own. MIR bends upwards beyond a learning rate, worsens with bad sources, and
is best where the model has hardly learnt, which the guard refuses: about a third of all points is
infeasible. Every seed has another world (which sources are bad, where MIR bends, whether MoCa
helps, whether its effects add up), the same for every sampler; scores are noisy. Two trials run
at a time; trials behind the median are stopped, and known by a worse score. Regret: true MIR of the
variant that the study would choose, above the best possible one; all samplers begin with the
base recipe's own point.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import optuna

from sweeps.cube import Cube
from sweeps.samplers import SAMPLERS, Sampler
from sweeps.space import space_of
from sweeps.spec import StudySpec, SweepSpec
from sweeps.told import Told

SOURCES = ("s0", "s1", "s2", "s3", "s4")
NOISE, GAP_NOISE, UNFINISHED = 0.01, 0.008, 0.03
WORST = 3.0
TITLE = "# Samplers: which one finds a good variant with few trials?\n"


def a_sweep() -> SweepSpec:
    """The quickstart's space."""
    rate = {"low": 3e-4, "high": 1e-1, "log": True}
    branches = {"off": None, "on": {"kind": "scale-shift", "init_std": {"low": 0, "high": 0.05}}}
    return SweepSpec.model_validate(
        {
            "name": "bench",
            "base": {
                "data": {
                    "sources": {name: {"style": "detailed"} for name in SOURCES},
                    "validation": {"split": "validation"},
                },
                "optim": {"samples": 3072, "global_batch": 8},
            },
            "space": {
                "data": {"mixture": {"mixture": "all"}},
                "optim": {"learning_rate": rate},
                "model": {"moca": {"branches": branches}},
            },
        }
    )


class World:
    """True MIR and violation of the guard at every point; drawn from the seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([77, seed])
        self.bad = rng.permutation([0.0, 0.05, 0.15, 0.2, 0.28]) * rng.uniform(0.6, 1.4)
        self.blind = np.clip(self.bad / 0.28 + rng.normal(0, 0.15, len(SOURCES)), 0, 1.1)
        self.knee, self.learns = rng.uniform(-2.6, -2.0), rng.uniform(-3.2, -2.8)
        self.moca, self.width = rng.uniform(-0.08, 0.03), rng.uniform(0.005, 0.045)
        # In half of the worlds a mixture is more than the sum of its sources.
        self.blend = rng.dirichlet([1.0] * len(SOURCES))
        self.curve = rng.uniform(0.1, 0.5) * (seed % 2)

    def true(self, weights, rate, moca, width):
        """MIR and violation; arrays welcome. rate: its decimal logarithm."""
        mir = 0.85 + 0.05 * (rate + 3.5) + weights @ self.bad
        mir = mir + 0.33 * np.logaddexp(0, (rate - self.knee) / 0.15)
        mir = mir + self.curve * ((weights - self.blend) ** 2).sum(-1)
        mir = mir + np.where(moca, self.moca + 60 * (width - self.width) ** 2, 0.0)
        seen = 0.09 / (1 + np.exp(-(rate - self.learns) / 0.25)) * (1 - weights @ self.blind)
        return mir, 0.02 - seen * np.where(moca, 1.2, 1.0)

    def best(self) -> float:
        """The lowest feasible MIR of many random points."""
        rng = np.random.default_rng(1)
        weights = np.vstack([rng.dirichlet([a] * len(SOURCES), 15000) for a in (0.3, 1.0)])
        rate, moca = rng.uniform(-3.52, -1.5, 30000), rng.random(30000) < 0.7
        mir, violation = self.true(weights, rate, moca, np.full(30000, self.width))
        return float(mir[violation <= 0].min())


@dataclass
class Trials:
    """One study in progress."""

    cube: Cube
    world: World
    seed: int
    told: dict[int, Told] = field(default_factory=dict)
    true: dict[int, float] = field(default_factory=dict)

    def point(self, shown):
        """What the world takes of a point."""
        weights = np.array([shown[f"mixture/{name}"] for name in SOURCES])
        return (
            weights,
            math.log10(shown["learning_rate"]),
            shown["moca"] == "on",
            shown.get("moca/init_std", 0.0),
        )

    def end(self, number: int) -> None:
        """Measure a trial, as a complete or as a stopped one."""
        raw = self.told[number].raw
        mir, violation = self.world.true(*self.point(self.cube.space.job(raw)[1]))
        rng = np.random.default_rng([5, self.seed, number])
        value, broken = mir + rng.normal(0, NOISE), violation + rng.normal(0, GAP_NOISE)
        others = [t.values[0] for t in self.told.values() if t.feasible]
        behind = len(others) >= 2 and value > statistics.median(others) + 0.02
        stopped = broken > 0 or behind
        self.true[number] = float(mir)
        self.told[number] = Told(
            number=number,
            raw=raw,
            state="stopped" if stopped else "complete",
            values=(float(value + UNFINISHED * stopped),),
            errors=(NOISE,),
            violations={"gap-above-noise": float(broken)},
        )

    def regret(self) -> float:
        """How far the chosen variant is from the best possible one."""
        done = [t for t in self.told.values() if t.feasible and t.state == "complete"]
        if not done:
            return WORST
        chosen = min(done, key=lambda t: t.values[0])
        return self.true[chosen.number] - self.world.best()


def study(sampler: Sampler, cube: Cube, seed: int, trials: int, at_once: int) -> float:
    """Regret after one study."""
    run = Trials(cube, World(seed), seed)
    start = cube.space.encode(cube.space.start())
    for number in range(trials):
        if number >= at_once:
            run.end(number - at_once)
        told = list(run.told.values())
        raw = start if number == 0 else cube.taken(sampler.propose(number, told))
        run.told[number] = Told(number=number, raw=raw, state="open")
    for number in range(max(0, trials - at_once), trials):
        run.end(number)
    return run.regret()


def interval(wins: float, seeds: int) -> str:
    """A share with Wilson's 95 % interval."""
    z, p = 1.96, wins / seeds
    middle = (p + z * z / 2 / seeds) / (1 + z * z / seeds)
    half = z / (1 + z * z / seeds) * math.sqrt(p * (1 - p) / seeds + z * z / 4 / seeds**2)
    return f"{p:.2f} ({middle - half:.2f} to {middle + half:.2f})"


def spread(values: list[float]) -> str:
    """A median with the 95 % interval of 2,000 resamples."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return f"{statistics.median(values):.3f} ({low:.3f} to {high:.3f})"


def measure(name: str, startup: int, args: argparse.Namespace, base: list[float]) -> list[float]:
    """One row; random search's own regrets are `base`."""
    cube = Cube(space_of(a_sweep()))
    began = time.process_time()
    found = []
    for seed in range(args.seeds):
        spec = StudySpec(sampler=name, seed=seed, startup_trials=startup)
        found.append(study(SAMPLERS[name](cube, spec), cube, seed, args.trials, args.at_once))
    each = 1000 * (time.process_time() - began) / args.seeds / args.trials
    base = base or found
    wins = sum(a < b for a, b in zip(found, base, strict=True))
    wins += 0.5 * sum(a == b for a, b in zip(found, base, strict=True))
    label = name if name in ("random", "qmc") else f"{name}, {startup} to begin with"
    row = (
        f"| {label} | {args.trials} | {spread(found)} | {np.quantile(found, 0.9):.3f} | "
        f"{interval(wins, args.seeds)} | {each:.0f} |"
    )
    print(row, flush=True)
    args.rows.append(row)
    return found


def main() -> None:
    """Run all rows and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--append", action="store_true", help="keep what the page already holds")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--samplers", nargs="+", default=["qmc", "tpe", "gp"])
    parser.add_argument("--startup", nargs="+", type=int, default=[4, 6, 8])
    args = parser.parse_args()
    args.rows = []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    base = measure("random", 6, args, [])
    for name in args.samplers:
        for startup in [6] if name == "qmc" else args.startup:
            measure(name, startup, args, base)
    if args.out:
        head = f"Command: `{' '.join(['python', *sys.argv])}`"
        page = [
            f"{head} ({os.cpu_count()} shared cores, Python {platform.python_version()}, Optuna "
            f"{optuna.__version__}; {args.seeds} worlds, {args.at_once} trials at a time).",
            "",
            "| sampler | trials | regret in MIR, median | 9th decile | beats random | ms a trial |",
            "|---|---|---|---|---|---|",
            *args.rows,
            "",
        ]
        before = args.out.read_text(encoding="utf-8") if args.append else TITLE
        args.out.write_text(before + "\n" + "\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
