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

    Shapes: pixel_values [B, 3, H, W] float, caption_ids [B, T] long (prompt, caption, padding on
    the right), caption_mask [B, T] bool, True on the caption and its end-of-sequence token: what
    is learnt. A prompt is read but not learnt.
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

    Every caption is followed by the end-of-sequence token and then cut to `max_tokens`, which the
    prompt before it shares. Text that
    looks like a special token is read as plain text, so a caption cannot end itself early.
    """
    texts = [sample.caption for sample in samples]
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
    rows = [[*ids, tokenizer.eos_token_id][:max_tokens] for ids in encoded["input_ids"]]
    prompts = _prompts(samples, tokenizer, [max_tokens - len(row) for row in rows])
    given = [len(prompt) for prompt in prompts]
    rows = [[*prompt, *row] for prompt, row in zip(prompts, rows, strict=True)]
    width = max(len(row) for row in rows)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    images = [sample.image for sample in samples]
    learnt = [
        [start <= t < len(row) for t in range(width)]
        for start, row in zip(given, rows, strict=True)
    ]
    return Batch(
        pixel_values=image_processor(images=images, return_tensors="pt")["pixel_values"],
        caption_ids=torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        caption_mask=torch.tensor(learnt),
    )


def _prompts(samples: Sequence[Sample], tokenizer: Any, room: Sequence[int]) -> list[list[int]]:
    """Each sample's prompt as tokens; one too long keeps its end, which the answer follows."""
    texts = [sample.prompt for sample in samples]
    if not any(texts):
        return [[] for _ in texts]
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [ids[max(0, len(ids) - left) :] for ids, left in zip(encoded, room, strict=True)]
