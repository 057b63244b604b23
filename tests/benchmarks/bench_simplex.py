"""Which encoding of a mixture lets samplers find a known optimum? Writes a Markdown table.

    python tests/benchmarks/bench_simplex.py --out infra/benchmarks/simplex.md

A study in memory minimises the squared distance of a mixture over k sources to a target drawn for
each seed: 'inner' targets are uniform on the simplex, 'sparse' ones (Dirichlet 0.3) lie near its
faces, as when some sources are worthless. Both encodings see the same targets and seeds, so the
seeds are pairs; the p-value is a Wilcoxon signed-rank test of the pairs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import optuna
from scipy.stats import wilcoxon

from sweeps.mixtures import Encoding, Simplex

ENCODINGS: tuple[Encoding, ...] = ("exponential", "stick-breaking")
TARGETS = {"inner": 1.0, "sparse": 0.3}
SAMPLERS = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(n_startup_trials=6, seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(n_startup_trials=6, seed=seed),
}
TITLE = "# Encodings of a mixture: in which one do samplers find an optimum?\n"


@dataclass(frozen=True)
class Case:
    """One row of the table; errors: final squared distance by encoding, one a seed."""

    sampler: str
    sources: int
    target: str
    trials: int
    errors: dict[Encoding, list[float]]

    @property
    def p(self) -> float:
        """Of no difference between the encodings."""
        pairs = np.array([self.errors[name] for name in ENCODINGS])
        return 1.0 if np.allclose(pairs[0], pairs[1]) else float(wilcoxon(*pairs).pvalue)


def search(sampler: str, sources: int, encoding: Encoding, target: str, seed: int, trials: int):
    """Squared distance of the best of `trials` mixtures to the target."""
    optimum = np.random.default_rng([seed, sources]).dirichlet([TARGETS[target]] * sources)
    simplex = Simplex(names=tuple(f"s{i}" for i in range(sources)), encoding=encoding)
    study = optuna.create_study(sampler=SAMPLERS[sampler](seed))
    for _ in range(trials):
        trial = study.ask()
        u = [trial.suggest_float(name, 0.0, 1.0) for name in simplex.parameters]
        weights = np.array(list(simplex.decode(u).values()))
        study.tell(trial, float(((weights - optimum) ** 2).sum()))
    return study.best_value


def measure(sampler: str, sources: int, target: str, seeds: int, trials: int) -> Case:
    """One row."""
    errors = {
        encoding: [search(sampler, sources, encoding, target, s, trials) for s in range(seeds)]
        for encoding in ENCODINGS
    }
    case = Case(sampler, sources, target, trials, errors)
    print(row(case), flush=True)
    return case


def row(case: Case) -> str:
    """One line of the table."""
    middle = {name: statistics.median(case.errors[name]) for name in ENCODINGS}
    wins = sum(a < b for a, b in zip(*(case.errors[name] for name in ENCODINGS), strict=True))
    figures = " | ".join(f"{middle[name]:.5f}" for name in ENCODINGS)
    seeds = len(case.errors[ENCODINGS[0]])
    return (
        f"| {case.sampler} | {case.sources} | {case.target} | {case.trials} | {figures} | "
        f"{wins}/{seeds} | {case.p:.3f} |"
    )


def summary(cases: Iterable[Case], sampler: str) -> str:
    """All pairs of one sampler together: the typical ratio of the errors, and who wins."""
    pairs = [
        pair
        for case in cases
        if case.sampler == sampler
        for pair in zip(*(case.errors[name] for name in ENCODINGS), strict=True)
    ]
    logs = [float(np.log(a / b)) for a, b in pairs]
    ratio, wins = float(np.exp(statistics.mean(logs))), sum(a < b for a, b in pairs)
    p = 1.0 if not any(logs) else float(wilcoxon(logs).pvalue)
    return (
        f"- {sampler}: the error of exponential is {ratio:.2f} times that of stick-breaking "
        f"(geometric mean of {len(pairs)} pairs, lower in {wins}; p = {p:.2g})"
    )


def document(cases: Sequence[Case], command: str, seconds: float) -> str:
    """The page that is written."""
    names = list(dict.fromkeys(case.sampler for case in cases))
    head = " | ".join(f"median error, {name}" for name in ENCODINGS)
    lines = [
        f"Command: `{command}` ({seconds:.0f} s, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, Optuna {optuna.__version__}). Error: squared distance of "
        "the best mixture of a study to the known optimum; the same seeds and optima for both.",
        "",
        *[summary(cases, name) for name in names],
        "",
        f"| sampler | sources | optimum | trials | {head} | exponential better | p |",
        "|---|---|---|---|---|---|---|---|",
        *[row(case) for case in cases],
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run all rows and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--append", action="store_true", help="keep what the page already holds")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe", "gp"])
    parser.add_argument("--sources", nargs="+", type=int, default=[3, 4, 5, 6, 8])
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    cases = [
        measure(sampler, sources, target, args.seeds, args.trials)
        for sampler in args.samplers
        for sources in args.sources
        for target in TARGETS
    ]
    page = document(cases, " ".join(["python", *sys.argv]), time.perf_counter() - started)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        before = args.out.read_text(encoding="utf-8") if args.append else TITLE
        args.out.write_text(f"{before}\n{page}", encoding="utf-8")


if __name__ == "__main__":
    main()
