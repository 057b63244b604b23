"""Small pictures and listings that the data tests read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image


class Characters:
    """A tokenizer whose tokens are code points; records what it was asked."""

    eos_token_id = 1
    pad_token_id = 0

    def __call__(self, texts, **options):
        assert options == {"add_special_tokens": False, "split_special_tokens": True}
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


class Colours:
    """An image processor that keeps the corner's colour: [B, 3, 1, 1]."""

    def __call__(self, images, return_tensors):
        corners = [np.asarray(image)[:1, :1].astype(np.float32) for image in images]
        return {"pixel_values": torch.from_numpy(np.stack(corners)).permute(0, 3, 1, 2)}


def write_listing(folder: Path, count: int, name: str = "data.jsonl", bad=()) -> Path:
    """`count` one-colour pictures with captions 'n'; those in `bad` have no file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for n in range(count):
        if n not in bad:
            Image.new("RGB", (4, 4), (n % 256, n // 256, 7)).save(folder / f"{n}.png")
        lines.append(json.dumps({"image": f"{n}.png", "caption": f"caption {n}"}))
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
