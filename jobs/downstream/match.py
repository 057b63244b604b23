"""Does the model tell pictures apart? Losses of every caption of a group with every picture of it.

Legend: n captions in a group, V vision tokens, F feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.data.batch import collate
from jobs.data.sample import Sample
from jobs.model.llava import Llava


@dataclass(frozen=True, kw_only=True)
class GroupLoss:
    """losses_nn[p][c]: mean token loss of caption c with picture p, nats."""

    losses_nn: list[list[float]]

    @property
    def right(self) -> list[float]:
        """Each caption with its own picture."""
        return [row[p] for p, row in enumerate(self.losses_nn)]

    @property
    def wrong(self) -> list[float]:
        """Each caption with the other pictures of its group, on average."""
        n = len(self.losses_nn)
        return [sum(self.losses_nn[p][c] for p in range(n) if p != c) / (n - 1) for c in range(n)]

    @property
    def captions_found(self) -> list[float]:
        """1 for each picture whose own caption has the lowest loss, else 0."""
        return [float(row.index(min(row)) == p) for p, row in enumerate(self.losses_nn)]

    @property
    def pictures_found(self) -> list[float]:
        """1 for each caption whose own picture gives it the lowest loss, else 0.

        Unlike the choice of a caption it does not favour captions that are likely by themselves.
        """
        columns = list(zip(*self.losses_nn, strict=True))
        return [float(column.index(min(column)) == c) for c, column in enumerate(columns)]


def groups_of(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Groups of `size` samples with different captions; what is left over at the end is left out.

    Samples come in a fixed shuffled order, so neighbours are no more alike than others.
    """
    groups: list[list[Sample]] = [[]]
    for sample in samples:
        if any(sample.caption == other.caption for other in groups[-1]):
            continue
        groups[-1].append(sample)
        if len(groups[-1]) == size:
            groups.append([])
    return groups[:-1]


@torch.no_grad()
def group_loss(
    model: Llava, samples: Sequence[Sample], tokenizer: Any, image_processor: Any, max_tokens: int
) -> GroupLoss:
    """All n x n losses of one group."""
    device = next(model.parameters()).device
    batch = collate(samples, tokenizer, image_processor, max_tokens).to(device)
    features_nVF = model.encode(batch.pixel_values)
    rows: list[Tensor] = []
    for features_VF in features_nVF:
        same_nVF = features_VF.expand(len(samples), *features_VF.shape)
        rows.append(model.per_sample_loss(batch, same_nVF))
    losses: list[list[float]] = torch.stack(rows).tolist()
    return GroupLoss(losses_nn=losses)
