"""Vision encoders: any transformers vision model, or a kind of folder with a loader of its own.

Legend: B pictures, H and W their height and width in pixels, V vision tokens, F feature width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mir.errors import ConfigError


class VisionTower(nn.Module):
    """A transformers vision model whose patch features are the vision tokens.

    width: F. Class and register tokens, which stand before the patches, are dropped.
    select_layer: -1 takes the encoder's output after its final norm, any other index an entry of
        its `hidden_states` (LLaVA takes -2 of CLIP).
    """

    def __init__(self, encoder: nn.Module, select_layer: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self._patch = _patch_size(encoder.config)
        self._layer = select_layer

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, V, F]."""
        inner = self._layer != -1
        out = self.encoder(pixel_values=pixels_BCHW, output_hidden_states=inner)
        states = out.hidden_states[self._layer] if inner else out.last_hidden_state
        height, width = pixels_BCHW.shape[-2:]
        tokens = (height // self._patch[0]) * (width // self._patch[1])
        features: Tensor = states[:, -tokens:]
        return features


def _patch_size(config: Any) -> tuple[int, int]:
    size = config.patch_size
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


@dataclass(frozen=True, kw_only=True)
class Vision:
    """tower: [B, 3, H, W] -> [B, V, F] with an attribute `width` = F.

    image_processor: callable as `image_processor(images=[...], return_tensors='pt')`, the
        encoder's own preprocessing.
    """

    tower: nn.Module
    image_processor: Any


def _embedded(name: str, select_layer: int) -> Vision:  # noqa: ARG001 - one signature for all
    from jobs.world.load import load_image_processor, load_vision

    return Vision(
        tower=VisionTower(load_vision(), select_layer), image_processor=load_image_processor()
    )


def _efficientnet(name: str, select_layer: int) -> Vision:
    from jobs.real.efficientnet import load_image_processor, load_vision

    return Vision(
        tower=VisionTower(load_vision(name), select_layer),
        image_processor=load_image_processor(name),
    )


def _transformers(name: str, select_layer: int) -> Vision:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    try:
        config = AutoConfig.from_pretrained(name)
        pooler = {} if hasattr(config, "vision_config") else _without_pooler(config)
        model = AutoModel.from_pretrained(name, dtype=torch.float32, **pooler)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.vision: {name!r} cannot be loaded: {_first_line(error)}"
        ) from error
    return Vision(
        tower=VisionTower(getattr(model, "vision_model", model), select_layer),
        image_processor=processor,
    )


def _without_pooler(config: Any) -> dict[str, bool]:
    """A ViT's pooler is made anew where the weights have none, and is never used here."""
    return {"add_pooling_layer": False} if config.model_type in ("vit", "deit") else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


VISION_LOADERS: dict[str, Callable[[str, int], Vision]] = {
    "embedded": _embedded,
    "efficientnet-lite0": _efficientnet,
    "transformers": _transformers,
}


def load_vision(name: str, select_layer: int) -> Vision:
    """Load 'embedded', a folder, or a hub name.

    A folder whose config.json has a `model_type` named in VISION_LOADERS goes to that loader,
    everything else to transformers. Raises ConfigError if it cannot be loaded.
    """
    kind = name if name in VISION_LOADERS else _kind_of_folder(Path(name).expanduser())
    return VISION_LOADERS[kind](name, select_layer)


def _kind_of_folder(folder: Path) -> str:
    config = folder / "config.json"
    if not config.is_file():
        return "transformers"
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    return kind if kind in VISION_LOADERS else "transformers"
