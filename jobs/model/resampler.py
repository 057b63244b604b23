"""A projector with a fixed number of vision tokens, whatever the encoder gives.

Legend: B pictures, V vision tokens of the encoder, Q queries, F feature width, D hidden size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

_HEAD = 64


class Resampler(nn.Module):
    """Q learnt queries look at all V features once: [B, V, F] -> [B, Q, D].

    One pre-norm block of cross-attention and a two-layer MLP. Keys carry sine positions of the
    grid, so that a query can look for a place. Source: the adapter of Qwen-VL (Bai et al. 2023,
    arXiv 2308.12966), after Perceiver (Jaegle et al. 2021, arXiv 2103.03206).
    """

    def __init__(self, queries: int, width_in: int, width_out: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width_out) * 0.02)
        self.enter = nn.Linear(width_in, width_out)
        self.norm_features = nn.LayerNorm(width_out)
        self.norm_queries = nn.LayerNorm(width_out)
        self.query, self.key, self.value, self.join = (
            nn.Linear(width_out, width_out) for _ in range(4)
        )
        self.norm_mlp = nn.LayerNorm(width_out)
        self.mlp = nn.Sequential(
            nn.Linear(width_out, width_out), nn.GELU(), nn.Linear(width_out, width_out)
        )
        wanted = max(1, width_out // _HEAD)
        self.heads = max(h for h in range(1, wanted + 1) if width_out % h == 0)

    def forward(self, features_BVF: Tensor) -> Tensor:
        """[B, V, F] -> [B, Q, D]."""
        seen_BVD = self.norm_features(self.enter(features_BVF))
        placed_BVD = seen_BVD + grid_positions(*seen_BVD.shape[1:]).to(seen_BVD)
        queries_BQD = self.queries.expand(len(features_BVF), -1, -1)
        answer_BQD = F.scaled_dot_product_attention(
            self._split(self.query(self.norm_queries(queries_BQD))),
            self._split(self.key(placed_BVD)),
            self._split(self.value(seen_BVD)),
        )
        tokens_BQD = queries_BQD + self.join(answer_BQD.transpose(1, 2).flatten(2))
        joined: Tensor = tokens_BQD + self.mlp(self.norm_mlp(tokens_BQD))
        return joined

    def _split(self, x_BTD: Tensor) -> Tensor:
        split: Tensor = x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split


def grid_positions(tokens: int, width: int) -> Tensor:
    """Sine positions [tokens, width]: half of the width for the row, half for the column.

    A number of tokens that is no square (a class token among them) is taken for one row.
    """
    side = math.isqrt(tokens)
    columns = side if side * side == tokens else tokens
    place = torch.arange(tokens)
    row_ND = _sines(place // columns, width - width // 2)
    column_ND = _sines(place % columns, width // 2)
    return torch.cat([row_ND, column_ND], dim=1)


def _sines(place_N: Tensor, width: int) -> Tensor:
    """[N, width]: sine and cosine of each place at frequencies from 1 down to 1 / 10000."""
    half = (width + 1) // 2
    frequency = torch.exp(torch.arange(half) * (-math.log(10_000.0) / max(1, half)))
    angle = place_N[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]
