"""How many positions a language model can read, and whether a job asks for more."""

from __future__ import annotations

from typing import Any

import torch

from jobs.model.llava import Llava
from jobs.spec import JobSpec
from mir.errors import ConfigError


def positions_of(model: Llava) -> int | None:
    """Most positions that the language model was made for, None where it has no limit."""
    config: Any = model.language.config
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if most is None else int(most)


def require_room(model: Llava, spec: JobSpec) -> None:
    """Raise ConfigError where prefix, picture and text of a job need more positions than there are.

    Rotary models would read on beyond their length without a word, and badly.
    """
    most = positions_of(model)
    if most is None:
        return
    tower: Any = model.vision
    with torch.no_grad():
        vision = model.projector(torch.zeros(1, tower.tokens, tower.width)).shape[1]
    left = most - vision - len(model.prefix_ids)
    wanted = {
        "data.max_caption_tokens": spec.data.max_caption_tokens,
        "score.max_text_tokens": spec.score.max_text_tokens,
    }
    for field, tokens in wanted.items():
        if tokens > left:
            remedy = (
                f"use {left} or fewer"
                if left > 0
                else "take a projector that gives fewer, such as 'pixel-shuffle' or 'resampler64'"
            )
            raise ConfigError(
                f"{field}: {tokens} text tokens after {vision} vision tokens do not fit into the "
                f"{most} positions of {spec.model.language}: {remedy}"
            )
