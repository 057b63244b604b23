"""The most memory that scoring takes, measured in a process of its own.

    python tests/mir/memory_worker.py THREADS PASSES DTYPE [SIZE LAYERS SEQUENCES LENGTH]

Random states run through linear layers; bench_mir.py --memory prints more cases than
test_memory_peak.py has time for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mir.capture import Batch, Subject, score_model
from mir.memory import MemoryPlan, Need, release
from mir.report import Protocol
from mir.score import score_layers

SIZE, LAYERS, SEQUENCES, LENGTH = 512, 12, 48, 250


@dataclass(frozen=True)
class Random:
    """Batches of random states, made again in every pass; half vision, half text."""

    size: int
    sequences: int
    length: int
    dtype: torch.dtype

    def __iter__(self) -> Iterator[Batch]:
        vision = torch.arange(self.length)[None] < self.length // 2
        for number in range(self.sequences):
            generator = torch.Generator().manual_seed(number)
            states = torch.randn(1, self.length, self.size, generator=generator).to(self.dtype)
            yield Batch(inputs={"x": states}, vision=vision, text=~vision, pairs=[number])


def peak() -> int:
    """Most bytes that were resident since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def forget_peak() -> None:
    """Loading a model can take more than running it; Linux starts to watch anew."""
    release()
    Path("/proc/self/clear_refs").write_text("5")


@torch.no_grad()
def measure(
    subject: Subject, batches: Iterable[Batch], tokens: int, passes: int, dtype: torch.dtype
) -> dict[str, int]:
    """Bytes that the score takes over its forward passes, and what the formula allows."""
    small = torch.randn(300, 64)
    score_layers([(small, small + 1)])  # loads the libraries, which are no part of the score
    forget_peak()
    for batch in batches:
        subject.forward(batch.inputs)
    before, layers = peak(), len(subject.decoder_layers)
    step = -(-layers // passes)
    groups = tuple(range(k, min(k + step, layers + 1)) for k in range(1, layers + 1, step))
    plan = MemoryPlan(store="device", groups=groups, reason="")
    score_model(subject, batches, plan=plan, protocol=Protocol(variant="exact"))
    need = Need(
        layers=layers,
        tokens=tokens,
        all_tokens=tokens,
        size=subject.hidden_size,
        itemsize=dtype.itemsize,
    )
    return {"over": peak() - before, "bound": need.kept(step) + need.work}


def main(
    threads: int,
    passes: int,
    kind: str,
    size: int = SIZE,
    layers: int = LAYERS,
    sequences: int = SEQUENCES,
    length: int = LENGTH,
) -> dict[str, int]:
    """`measure` of random states."""
    torch.set_num_threads(threads)
    dtype: torch.dtype = getattr(torch, kind)
    module = nn.Sequential(*(nn.Linear(size, size) for _ in range(layers))).to(dtype)
    subject = Subject(
        module=module,
        forward=lambda inputs: module(inputs["x"]),
        decoder_layers=list(module),
        final_norm=None,
        hidden_size=size,
    )
    batches = Random(size, sequences, length, dtype)
    return measure(subject, batches, sequences * length, passes, dtype)


if __name__ == "__main__":
    shape = [int(word) for word in sys.argv[4:]]
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *shape)))
