"""MIR on a GPU: the roots compared, a layer, and the whole score of a 7B-shaped model; by hand.

    python tests/benchmarks/bench_mir_gpu.py
    python tests/benchmarks/bench_mir_gpu.py --device cpu --dim 256 --layers 2 --pairs 4

Without a GPU only the second does anything useful; it shows that everything runs. Weights are
random, so the numbers say what scoring costs and not what a trained model scores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch import Tensor

from mir.capture import Batch, Subject, score_model
from mir.layer import score_layer
from mir.memory import MemoryPlan
from mir.report import Protocol

VISION, TEXT = 576, 300
ITERATIONS = 60


def seconds(device: torch.device, work: Callable[[], object], repeats: int) -> float:
    """Median wall time of finished work, after one call that is not counted."""
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return median(found[1:])


def covariances(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two float64 covariances over two decades of spread, in unlike bases."""
    made = []
    for seed in (0, 1):
        generator = torch.Generator(device=device).manual_seed(seed)
        rows = torch.randn(3 * size, size, generator=generator, device=device, dtype=torch.float64)
        basis = torch.randn(size, size, generator=generator, device=device, dtype=torch.float64)
        rows = rows * torch.logspace(0, -1, size, device=device, dtype=torch.float64) @ basis
        made.append(rows.T @ rows / (3 * size * size))
    return made[0], made[1]


def by_eigenvalues(p_DD: Tensor, q_DD: Tensor) -> float:
    """tr((P Q)^(1/2)) through the symmetric root of P: two eigenvalue problems."""
    values, vectors = torch.linalg.eigh(p_DD)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return float(torch.linalg.eigvalsh(root @ q_DD @ root).clamp(min=0).sqrt().sum())


def by_cholesky(p_DD: Tensor, q_DD: Tensor) -> float:
    """The same through the Cholesky factor of P: one eigenvalue problem without vectors."""
    factor = torch.linalg.cholesky(p_DD)
    return float(torch.linalg.eigvalsh(factor.T @ q_DD @ factor).clamp(min=0).sqrt().sum())


def by_newton_schulz(p_DD: Tensor, q_DD: Tensor, dtype: torch.dtype) -> float:
    """The same by products alone: Y -> Y (3 - Z Y) / 2, Z -> (3 - Z Y) Z / 2 from Y = A, Z = I.

    A = L^T Q L is divided by a bound of its largest eigenvalue (its Frobenius norm), without which
    the iteration diverges; it stops where the trace of Y stands still.
    Source: Higham 2008, Functions of Matrices, section 6.3.
    """
    factor = torch.linalg.cholesky(p_DD)
    a_DD = factor.T @ q_DD @ factor
    bound = torch.linalg.matrix_norm(a_DD)
    y_DD = (a_DD / bound).to(dtype)
    three = 3 * torch.eye(len(y_DD), dtype=dtype, device=y_DD.device)
    z_DD, before = three / 3, float("inf")
    for _ in range(ITERATIONS):
        step_DD = (three - z_DD @ y_DD) / 2
        y_DD, z_DD = y_DD @ step_DD, step_DD @ z_DD
        trace = float(y_DD.diagonal().double().sum())
        if abs(trace - before) <= 1e-12 * abs(trace):
            break
        before = trace
    return trace * float(bound.sqrt())


ROOTS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "two eigenvalue problems, float64": by_eigenvalues,
    "Cholesky and eigenvalues, float64": by_cholesky,
    "Newton-Schulz, float64": lambda p, q: by_newton_schulz(p, q, torch.float64),
    "Newton-Schulz, float32": lambda p, q: by_newton_schulz(p, q, torch.float32),
}


def roots(size: int, device: torch.device, repeats: int) -> None:
    """Time and error of each way to the trace of the root."""
    p, q = covariances(size, device)
    reference = float(
        torch.linalg.svdvals(torch.linalg.cholesky(p).T @ torch.linalg.cholesky(q)).sum()
    )
    print(f"root of D = {size}\n\n| way | seconds | relative error |\n|---|---|---|")
    for name, root in ROOTS.items():
        took = seconds(device, lambda root=root: root(p, q), repeats)
        print(f"| {name} | {took:.3f} | {abs(root(p, q) / reference - 1):.0e} |", flush=True)


def layer(size: int, tokens: int, device: torch.device, repeats: int) -> None:
    """One layer, features to number."""
    generator = torch.Generator(device=device).manual_seed(0)
    spread = torch.logspace(0, -1, size, device=device)
    vision, text = (
        torch.randn(tokens, size, generator=generator, device=device) * spread + k
        for k in (0.1, 0.0)
    )
    index = torch.arange(tokens) * 100 // tokens
    runs = {
        "exact": lambda: score_layer(vision, text, layer=1),
        "exact with error bar": lambda: score_layer(vision, text, layer=1, pairs=(index, index)),
        "paper-fast": lambda: score_layer(vision, text, layer=1, variant="paper-fast"),
    }
    print(f"\none layer, {tokens} tokens a modality\n\n| variant | seconds |\n|---|---|")
    for name, run in runs.items():
        print(f"| {name} | {seconds(device, run, repeats):.3f} |", flush=True)


class Pairs:
    """Batches of one pair: random embeddings, 576 positions for vision and 300 for text."""

    def __init__(self, count: int, size: int, device: torch.device, dtype: torch.dtype) -> None:
        self._count, self._size, self._device, self._dtype = count, size, device, dtype

    def __iter__(self) -> Iterator[Batch]:
        vision = torch.arange(VISION + TEXT, device=self._device)[None] < VISION
        for number in range(self._count):
            generator = torch.Generator(device=self._device).manual_seed(number)
            embeds = torch.randn(
                1, VISION + TEXT, self._size, generator=generator, device=self._device
            ).to(self._dtype)
            yield Batch(
                inputs={"inputs_embeds": embeds}, vision=vision, text=~vision, pairs=[number]
            )


def whole_model(size: int, layers: int, pairs: int, device: torch.device) -> None:
    """A decoder of LLaVA-1.5-7B's shape: forward passes alone, and with the score."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=size,
        intermediate_size=size * 11008 // 4096,
        num_hidden_layers=layers,
        num_attention_heads=max(1, size // 128),
        vocab_size=1000,
    )
    dtype = torch.bfloat16
    with torch.device(device):
        decoder = LlamaModel(config).to(dtype).eval()
    subject = Subject(
        module=decoder,
        forward=lambda inputs: decoder(**inputs, use_cache=False),
        decoder_layers=list(decoder.layers),
        final_norm=decoder.norm,
        hidden_size=size,
    )
    batches = Pairs(pairs, size, device, dtype)
    plan = MemoryPlan(store="device", groups=(range(1, layers + 1),), reason="")

    @torch.no_grad()
    def forwards() -> None:
        for batch in batches:
            subject.forward(batch.inputs)

    alone = seconds(device, forwards, 1)
    protocol = Protocol(variant="exact", pairs=pairs)
    scored = seconds(device, lambda: score_model(subject, batches, plan=plan, protocol=protocol), 1)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    print(
        f"\n{layers} layers of {size}, {pairs} pairs of {VISION} + {TEXT} tokens, bfloat16: "
        f"forward passes {alone:.2f} s, with the score {scored:.2f} s, ratio {scored / alone:.2f}, "
        f"peak {peak:.1f} GiB"
    )


def main() -> None:
    """Print what was measured as markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the host"
    print(f"torch {torch.__version__} on {name}\n")
    roots(options.dim, device, options.repeats)
    layer(options.dim, options.tokens, device, options.repeats)
    whole_model(options.dim, options.layers, options.pairs, device)


if __name__ == "__main__":
    main()
