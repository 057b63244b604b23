"""How many positions a language model can read, and whether a text still fits behind a picture."""

from __future__ import annotations

from typing import Any

import torch

from jobs.model.llava import Llava
from mir.errors import ConfigError


def positions_of(model: Llava) -> int | None:
    """Most positions that the language model was made for, None where it has no limit."""
    config: Any = model.language.config
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if most is None else int(most)


def require_room(model: Llava, field: str, tokens: int, prefix: int) -> None:
    """Raise ConfigError where prefix, picture and text need more positions than there are.

    Rotary models would read on beyond their length without a word, and badly. field: what limits
    the text. tokens, prefix: token counts after and before the picture.
    """
    most = positions_of(model)
    if most is None:
        return
    tower: Any = model.vision
    like = next(model.projector.parameters())
    with torch.no_grad():
        vision = model.projector(like.new_zeros(1, tower.tokens, tower.width)).shape[1]
    beyond = prefix + vision + tokens - most
    if beyond > 0:
        remedy = (
            f"make it {beyond} less"
            if tokens > beyond
            else "take a projector that gives fewer, such as 'pixel-shuffle' or 'resampler64'"
        )
        raise ConfigError(
            f"{field}: {tokens} text tokens after {vision} vision tokens do not fit into the "
            f"{most} positions of the language model: {remedy}"
        )
