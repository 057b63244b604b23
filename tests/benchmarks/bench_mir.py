"""Distance of one layer, features to number, beside the paper's two modes; run by hand.

    python tests/benchmarks/bench_mir.py [--sizes 576 1024 2048] [--kinds usual] [--repeats 3]
    python tests/benchmarks/bench_mir.py --bias
    python tests/benchmarks/bench_mir.py --end-to-end [--pairs 100] [--text-tokens 300]
        [--precision bf16]
    python tests/benchmarks/bench_mir.py --ranks --sizes 1024 --tokens 10000
    python tests/benchmarks/bench_mir.py --memory --sizes 1024

All of a size runs interleaved in one process, so the ratios hold where the seconds do not.
`--threads 1` counts the processor's seconds instead of the clock's, for machines that others
use too. `--accurate-up-to 2048` leaves the paper's accurate mode out where it takes minutes.
`--bias` prints how the distance of equal populations falls with the number of tokens; the others
are explained in bench_mir_model.py.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import bench_mir_model
import torch
from torch import Tensor

from mir.layer import LayerScore, score_layer
from mir.report import Variant

PAIRS = 100
SPECTRA = {"usual": (1.0, 0), "massive channel": (1.0, 1000), "ill-conditioned": (2.0, 0)}


def features(size: int, tokens: int, kind: str) -> tuple[Tensor, Tensor]:
    """Vision and text of one random basis and spectrum, slightly shifted: MIR's usual range."""
    decay, massive = SPECTRA[kind]
    generator = torch.Generator().manual_seed(size)
    spectrum = torch.logspace(0, -decay, size)
    basis = torch.randn(size, size, generator=generator) / size**0.5
    text, vision = (
        (torch.randn(tokens, size, generator=generator) * spectrum) @ basis for _ in range(2)
    )
    vision += 0.1 * torch.randn(size, generator=generator)
    if massive:
        vision[:, size // 2] *= massive
        text[:, size // 2] *= massive
    return vision, text


class Timed:
    """Seconds of repeated calls and the last result."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.score: LayerScore | None = None

    def run(self, vision: Tensor, text: Tensor, variant: Variant, pairs: Tensor | None) -> None:
        """Score once; the clock covers everything from features to number."""
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        started = clock()
        self.score = score_layer(
            vision, text, layer=1, variant=variant, pairs=None if pairs is None else (pairs, pairs)
        )
        self.seconds.append(clock() - started)


def compare(size: int, tokens: int, kind: str, repeats: int, accurate: bool) -> str:
    """One row of the table."""
    vision, text = features(size, tokens, kind)
    pairs = torch.arange(tokens) * PAIRS // tokens
    runs = {name: Timed() for name in ("exact", "error bar", "fast", "accurate", "float64")}
    for repeat in range(repeats):
        runs["exact"].run(vision, text, "exact", None)
        runs["error bar"].run(vision, text, "exact", pairs)
        runs["fast"].run(vision, text, "paper-fast", None)
        if accurate and repeat == 0:
            runs["accurate"].run(vision, text, "paper-accurate", None)
    runs["float64"].run(vision.double(), text.double(), "exact", None)
    seconds = {name: median(run.seconds) for name, run in runs.items() if run.seconds}
    exact, reference = runs["exact"].score, runs["float64"].score
    assert exact is not None and reference is not None
    error = abs(exact.distance / reference.distance - 1)
    slow = f"{seconds['accurate']:.2f} s" if accurate else "-"
    slow_ratio = f"{seconds['accurate'] / seconds['exact']:.1f}x" if accurate else "-"
    return (
        f"| {size} | {kind} | {seconds['exact']:.2f} s | {seconds['error bar']:.2f} s "
        f"({seconds['error bar'] / seconds['exact']:.2f}x) | {seconds['fast']:.2f} s | {slow} "
        f"| {seconds['fast'] / seconds['exact']:.2f}x | {slow_ratio} | {error:.0e} |"
    )


def bias(size: int) -> str:
    """Mean distance of two samples of one population against the tokens a sample."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.logspace(0, -1, size)
    basis = torch.randn(size, size, generator=generator) / size**0.5
    lines = ["| tokens a modality | mean distance (0 for the population) |", "|---|---|"]
    for tokens in (250, 500, 1000, 2000, 4000, 8000, 16000, 32000):
        distances = []
        for _ in range(4):
            pair = [
                (torch.randn(tokens, size, generator=generator) * spectrum) @ basis
                for _ in range(2)
            ]
            distances.append(score_layer(pair[0], pair[1], layer=1).distance)
        lines.append(f"| {tokens} | {sum(distances) / len(distances):.5f} |")
    return "\n".join(lines)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[576, 1024, 2048])
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=list(SPECTRA), default=list(SPECTRA))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bias", action="store_true")
    parser.add_argument("--accurate-up-to", type=int, default=2048)
    parser.add_argument("--end-to-end", action="store_true")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--text-tokens", type=int, default=300)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--ranks", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.bias:
        print(bias(options.sizes[0]))
    elif options.end_to_end:
        bench_mir_model.end_to_end(
            options.pairs, options.text_tokens, options.repeats, options.precision
        )
    elif options.ranks:
        bench_mir_model.ranks_against_threads(options.sizes[0], options.tokens, options.repeats)
    elif options.memory:
        bench_mir_model.memory(options.sizes[0], sequences=40, length=200, count=12)
    else:
        table(options)


def table(options: argparse.Namespace) -> None:
    """One row for every size and kind of features."""
    print(
        f"{options.tokens} tokens a modality, {PAIRS} pairs, {torch.get_num_threads()} threads, "
        f"medians of {options.repeats} (accurate: 1)\n\n"
        "| D | features | exact | with error bar | paper-fast | paper-accurate "
        "| fast / exact | accurate / exact | error against float64 |\n" + "|---" * 9 + "|"
    )
    for size in options.sizes:
        for kind in options.kinds:
            accurate = kind == "usual" and size <= options.accurate_up_to
            print(compare(size, options.tokens, kind, options.repeats, accurate), flush=True)


if __name__ == "__main__":
    main()
