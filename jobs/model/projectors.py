"""What maps vision features onto the language model's embeddings, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def mlp(depth: int, width_in: int, width_out: int) -> nn.Sequential:
    """`depth` linear layers with GELU between them: [.., width_in] -> [.., width_out].

    Source: the projector of LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744) is depth 2.
    """
    layers: list[nn.Module] = [nn.Linear(width_in, width_out)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(width_out, width_out)]
    return nn.Sequential(*layers)


PROJECTORS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": lambda width_in, width_out: mlp(1, width_in, width_out),
    "mlp2x_gelu": lambda width_in, width_out: mlp(2, width_in, width_out),
    "mlp3x_gelu": lambda width_in, width_out: mlp(3, width_in, width_out),
}
