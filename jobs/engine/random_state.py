"""A rank's random state as tensors, for checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor


def random_states() -> dict[str, Tensor]:
    """The state of every generator that training draws from, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """Take over what `random_states` gave."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
