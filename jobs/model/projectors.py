"""What maps vision features onto the language model's embeddings, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from jobs.model.resampler import Resampler
from jobs.spec.model import projector_number
from mir.errors import ConfigError


def mlp(depth: int, width_in: int, width_out: int) -> nn.Sequential:
    """`depth` linear layers with GELU between them: [.., width_in] -> [.., width_out].

    Source: the projector of LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744) is depth 2.
    """
    layers: list[nn.Module] = [nn.Linear(width_in, width_out)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(width_out, width_out)]
    return nn.Sequential(*layers)


class PixelShuffle(nn.Module):
    """Joins each 2 x 2 neighbourhood of a square grid: [B, V, F] -> [B, V / 4, 4 F].

    A quarter of the vision tokens at no loss of features. Source: the projectors of InternVL
    (Chen et al. 2024, arXiv 2404.16821) and Idefics3. Raises ConfigError where the encoder's
    tokens are no square grid of even side.
    """

    def forward(self, features_BVF: Tensor) -> Tensor:
        count, tokens, width = features_BVF.shape
        side = math.isqrt(tokens)
        if side * side != tokens or side % 2:
            raise ConfigError(
                f"model.projector: 'pixel-shuffle' needs a square grid of even side, the vision "
                f"encoder gives {tokens} tokens: take 'mlp2x_gelu'"
            )
        half = side // 2
        grid = features_BVF.reshape(count, half, 2, half, 2, width)
        return grid.transpose(2, 3).reshape(count, half * half, 4 * width)


class Normalised(nn.Module):
    """A projector between two norms: what comes in has unit variance, what goes out text's length.

    Features [B, V, F] are layer-normalised without weights; each vision token [B, V, D] is scaled
    to `length`, the mean norm of words as the language model's embedding gives them. So no
    learning rate can make vision tokens longer than words: a rate that is too high shows in what
    the tokens say, not in how loud they are. Sources: a norm before the projector as in InternVL
    (Chen et al. 2024, arXiv 2404.16821), the scale of the word embeddings as in
    Gemma 3 (Gemma Team 2025, arXiv 2503.19786).
    """

    length: Tensor

    def __init__(self, projector: nn.Module, words: nn.Embedding) -> None:
        super().__init__()
        self.projector = projector
        self.register_buffer("length", _mean_length(words))

    def forward(self, features_BVF: Tensor) -> Tensor:
        vision_BVD = self.projector(F.layer_norm(features_BVF, features_BVF.shape[-1:]))
        return self.length.to(vision_BVD.dtype) * F.normalize(vision_BVD, dim=-1)


@torch.no_grad()
def _mean_length(words: nn.Embedding) -> Tensor:
    """Mean norm of what the module gives, which for Gemma is more than its weights: asked for some
    words at a time, as a vocabulary may be gigabytes."""
    every_K = torch.arange(words.num_embeddings)
    return torch.cat([words(some_K).float().norm(dim=-1) for some_K in every_K.split(4096)]).mean()


PROJECTORS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": lambda width_in, width_out: mlp(1, width_in, width_out),
    "mlp2x_gelu": lambda width_in, width_out: mlp(2, width_in, width_out),
    "mlp3x_gelu": lambda width_in, width_out: mlp(3, width_in, width_out),
    "pixel-shuffle": lambda width_in, width_out: nn.Sequential(
        PixelShuffle(), *mlp(2, 4 * width_in, width_out)
    ),
}
# Named with a number, which comes first.
FAMILIES: dict[str, Callable[[int, int, int], nn.Module]] = {
    "mlp{n}x_gelu": mlp,
    "resampler{q}": Resampler,
}


def make_projector(name: str, width_in: int, width_out: int) -> nn.Module:
    """The projector that `model.projector` names: [B, V, width_in] -> [B, tokens, width_out]."""
    if name in PROJECTORS:
        return PROJECTORS[name](width_in, width_out)
    family, number = projector_number(name)
    assert number is not None, "a name without a number stands in PROJECTORS"
    return FAMILIES[family](number, width_in, width_out)
