"""Samples as tensors.

Shape legend: B samples, H height, W width, T caption tokens (the longest of the batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.data.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures and tokenised captions of B samples, in order.

    Shapes: pixel_values [B, 3, H, W] float, caption_ids [B, T] long (padded on the right),
    caption_mask [B, T] bool, True on the caption and its end-of-sequence token.
    """

    pixel_values: Tensor
    caption_ids: Tensor
    caption_mask: Tensor

    def __len__(self) -> int:
        return len(self.caption_ids)

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch(
            pixel_values=self.pixel_values.to(device),
            caption_ids=self.caption_ids.to(device),
            caption_mask=self.caption_mask.to(device),
        )


def collate(
    samples: Sequence[Sample], tokenizer: Any, image_processor: Any, max_tokens: int
) -> Batch:
    """Tokenise and preprocess; no beginning-of-sequence token, the model adds its own.

    Every caption is followed by the end-of-sequence token and then cut to `max_tokens`. Text that
    looks like a special token is read as plain text, so a caption cannot end itself early.
    """
    texts = [sample.caption for sample in samples]
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
    rows = [[*ids, tokenizer.eos_token_id][:max_tokens] for ids in encoded["input_ids"]]
    width = max(len(row) for row in rows)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    images = [sample.image for sample in samples]
    return Batch(
        pixel_values=image_processor(images=images, return_tensors="pt")["pixel_values"],
        caption_ids=torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        caption_mask=torch.tensor([[t < len(row) for t in range(width)] for row in rows]),
    )
