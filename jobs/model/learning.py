"""Which parameters of a model learn, and which modules are in training mode meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jobs.model.language import decoder_parts
from jobs.model.lora import lora_modules
from jobs.model.tower import VisionTower
from jobs.spec.trainable import TrainableSpec
from mir.errors import ConfigError

FIELD = "model.trainable"


@dataclass(frozen=True)
class Learning:
    """parameters: those that learn. modules: those that follow `train()`; the rest, frozen, stays
    in evaluation mode, without dropout."""

    parameters: frozenset[nn.Parameter]
    modules: tuple[nn.Module, ...]


def what_learns(
    spec: TrainableSpec,
    *,
    vision: VisionTower,
    projector: nn.Module,
    language: nn.Module,
    moca: nn.Module | None,
    pixels_1CHW: Tensor,
) -> Learning:
    """Carry out the spec on the parts of a model.

    Of the encoder, only what the features depend on learns: what stands behind `select_layer`
    could get no gradient. pixels_1CHW: a preprocessed picture, to find that out.
    Raises ConfigError for layers that there are not.
    """
    modules: list[nn.Module] = [] if moca is None else [moca]
    if spec.projector:
        modules.append(projector)
    if spec.language_until == "all":
        modules.append(language)
    elif spec.language_until is not None:
        layers = decoder_parts(language)[0]
        modules += layers[: _number("language_until", spec.language_until, layers)]
    if spec.lora is not None:
        modules += lora_modules(language)
    parameters = {p for module in modules for p in module.parameters()}
    if spec.vision_from is not None:
        first, seen = _vision_modules(vision, spec.vision_from)
        modules += seen
        parameters |= _behind(vision, first, pixels_1CHW)
    return Learning(frozenset(parameters), tuple(modules))


def _vision_modules(vision: VisionTower, start: Any) -> tuple[nn.Module | None, list[nn.Module]]:
    """The layer at which learning begins, None for the pixels, and what then is in training."""
    if start == "all":
        return None, [vision]
    layers = vision.layers
    first = _number("vision_from", start, layers)
    return layers[first - 1], layers[first - 1 :]


def _number(field: str, number: int, layers: Sequence[nn.Module]) -> int:
    if number > len(layers):
        raise ConfigError(
            f"{FIELD}.{field}: {number} is beyond the last of {len(layers)} layers: use 1 to "
            f"{len(layers)}, or 'all'"
        )
    return number


def _behind(vision: VisionTower, first: nn.Module | None, pixels: Tensor) -> set[nn.Parameter]:
    """The encoder's parameters between the input of layer `first` and the features."""

    def record(_layer: nn.Module, _args: Any) -> None:
        torch.set_grad_enabled(True)

    own = list(vision.parameters())
    asked = [p.requires_grad for p in own]
    handle = None if first is None else first.register_forward_pre_hook(record)
    try:
        vision.requires_grad_(True)
        # The graph begins at `first`: what ran before it, or does not follow from it, is no part.
        with torch.set_grad_enabled(first is None):
            features: Tensor = vision(pixels)
            reached = [None] * len(own)
            if features.requires_grad:
                reached = list(torch.autograd.grad(features.sum(), own, allow_unused=True))  # type: ignore[arg-type]
    finally:
        if handle is not None:
            handle.remove()
        for parameter, before in zip(own, asked, strict=True):
            parameter.requires_grad_(before)
    found = {p for p, gradient in zip(own, reached, strict=True) if gradient is not None}
    if not found:
        raise ConfigError(
            f"{FIELD}.vision_from: the features of model.select_layer are taken before that layer, "
            "so nothing of the encoder would learn: use an earlier layer"
        )
    return found
