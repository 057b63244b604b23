"""Activation checkpointing from outside, for frozen layers and layers that learn alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mir.errors import ConfigError


def checkpoint_activations(model: nn.Module) -> int:
    """Make every transformer layer of `model` compute its inside again in the backward pass.

    Returns how many layers do so from now on. transformers' own switch works in training mode
    only, which the frozen language model of a projector-only run never enters. Modules' forward
    hooks stay outside, so MoCa is not computed twice. Random numbers (dropout) are repeated
    exactly. Raises ConfigError if the model has no layers that transformers marks for it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            "deepspeed.activation_checkpointing: this model has no transformer layers to which it "
            "applies: leave it out"
        )
    for layer in layers:
        layer.forward = _recomputed(layer.forward)
    return len(layers)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # ZeRO-3 has taken the weights away when the check for equal shapes would look at them.
        return checkpoint(forward, *args, use_reentrant=False, determinism_check="none", **kwargs)

    return run
