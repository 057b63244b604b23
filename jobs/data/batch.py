"""Samples as tensors.

Shape legend: B samples, H height, W width, T caption tokens (the longest of the batch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jobs.data.sample import Sample, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

Prepare = Callable[["Image"], Tensor]  # a picture to its pixels [3, H, W] or features [V, F]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures and tokenised captions of B samples, in order.

    Shapes: pixel_values [B, 3, H, W] float, caption_ids [B, T] long (prompt, caption, in a
    conversation more of both, padding on the right), caption_mask [B, T] bool, True on each
    caption and its end-of-sequence token: what is learnt. A prompt is read but not learnt. Where
    vision features were computed beforehand, they stand in place of the pixels, [B, V, F].
    """

    pixel_values: Tensor
    caption_ids: Tensor
    caption_mask: Tensor

    @property
    def holds_features(self) -> bool:
        """Whether `pixel_values` are vision features already."""
        return self.pixel_values.ndim == 3

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
    """Tokenise and preprocess; see `join` and `pixels`."""
    pictures = [pixels(sample.image, image_processor) for sample in samples]
    texts = [sample.turns for sample in samples]
    return join(pictures, texts, tokenizer, max_tokens)


def pixels(image: Image, image_processor: Any) -> Tensor:
    """One picture as its encoder wants it, [3, H, W].

    Each is prepared by itself, so that its numbers do not depend on the others of a batch, and no
    more than one is held at full size.
    """
    prepared: Tensor = image_processor(images=[image], return_tensors="pt")["pixel_values"]
    return prepared[0]


def join(
    pictures: Sequence[Tensor], texts: Sequence[Sequence[Turn]], tokenizer: Any, max_tokens: int
) -> Batch:
    """Prepared pictures and tokenised texts; no beginning-of-sequence token, the model adds one.

    Every caption is followed by the end-of-sequence token and then cut to `max_tokens`, which the
    prompt before it shares; later turns take what is left. Text that looks like a special token is
    read as plain text, so a caption cannot end itself early.
    """
    captions = tokens([turns[0][1] for turns in texts], tokenizer)
    rows = [[*ids, tokenizer.eos_token_id][:max_tokens] for ids in captions]
    asked = [turns[0][0] for turns in texts]
    prompts = _prompts(asked, tokenizer, [max_tokens - len(row) for row in rows])
    learnt = [
        [False] * len(prompt) + [True] * len(row) for prompt, row in zip(prompts, rows, strict=True)
    ]
    rows = [[*prompt, *row] for prompt, row in zip(prompts, rows, strict=True)]
    later = [text for turns in texts for turn in turns[1:] for text in turn]
    encoded = iter(tokens(later, tokenizer) if later else [])
    for turns, row, mask in zip(texts, rows, learnt, strict=True):
        for _ in turns[1:]:
            given, answer = next(encoded), next(encoded)
            row += [*given, *answer, tokenizer.eos_token_id]
            mask += [False] * len(given) + [True] * (len(answer) + 1)
        del row[max_tokens:], mask[max_tokens:]
    width = max(len(row) for row in rows)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return Batch(
        pixel_values=torch.stack(list(pictures)),
        caption_ids=torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        caption_mask=torch.tensor([mask + [False] * (width - len(mask)) for mask in learnt]),
    )


def tokens(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Token ids of plain texts: none of them is special, whatever it looks like."""
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _prompts(asked: Sequence[str], tokenizer: Any, room: Sequence[int]) -> list[list[int]]:
    """Each prompt as tokens; one too long keeps its end, which the answer follows."""
    if not any(asked):
        return [[] for _ in asked]
    encoded = tokens(asked, tokenizer)
    return [ids[max(0, len(ids) - left) :] for ids, left in zip(encoded, room, strict=True)]
