"""Vision encoders: any transformers vision model, or a kind of folder with a loader of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.model.source import loading, read_config, require_whole
from jobs.model.tower import ClassToken, VisionTower
from jobs.spec.model import RandomVision
from mir.errors import ConfigError

FIELD = "model.vision"
_GREY_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class Vision:
    """tower: pictures -> vision tokens.

    image_processor: callable as `image_processor(images=[...], return_tensors='pt')`, the
        encoder's own preprocessing. pixels_1CHW: a grey picture so preprocessed.
    """

    tower: VisionTower
    image_processor: Any
    pixels_1CHW: Tensor


# An encoder (`encoder(pixel_values=...)` as in transformers) and its preprocessing.
Loaded = tuple[nn.Module, Any]


def _embedded(name: str) -> Loaded:  # noqa: ARG001 - one signature for all
    from jobs.world.load import load_image_processor, load_vision

    return load_vision(), load_image_processor()


def _efficientnet(name: str) -> Loaded:
    from jobs.real.efficientnet import load_image_processor, load_vision

    return load_vision(name), load_image_processor(name)


def _transformers(name: str) -> Loaded:
    from transformers import AutoModel

    config = read_config(FIELD, name)
    with loading(FIELD, name):
        model, info = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
            **_without_pooler(config),
        )
        # A pooler stands behind the features and is not used here.
        require_whole(FIELD, name, {key for key in info["missing_keys"] if "pooler" not in key})
        return getattr(model, "vision_model", model), _processor(name)


VISION_LOADERS: dict[str, Callable[[str], Loaded]] = {
    "embedded": _embedded,
    "efficientnet-lite0": _efficientnet,
    "transformers": _transformers,
}


def load_vision(
    source: str | RandomVision, select_layer: int, class_token: ClassToken = "drop"
) -> Vision:
    """Load 'embedded', a folder, a hub name, or make an encoder with random weights.

    A folder whose config.json has a `model_type` named in VISION_LOADERS goes to that loader,
    everything else to transformers. The caller's random state may change. Raises ConfigError if it
    cannot be loaded or cannot give the features that are asked for.
    """
    if isinstance(source, RandomVision):
        encoder, processor = _random(source)
    else:
        folder = Path(source).expanduser()
        kind = source if source in VISION_LOADERS else _kind_of_folder(folder)
        encoder, processor = VISION_LOADERS[kind](str(folder) if folder.is_dir() else source)
    pixels_1CHW = _one_picture(processor)
    tower = VisionTower(encoder, select_layer, class_token, pixels_1CHW=pixels_1CHW)
    return Vision(tower=tower, image_processor=processor, pixels_1CHW=pixels_1CHW)


def _random(source: RandomVision) -> Loaded:
    from transformers import AutoModel

    config = read_config(f"{FIELD}.random", source.random)
    with loading(f"{FIELD}.random", source):
        torch.manual_seed(source.seed)
        model = AutoModel.from_config(
            config, dtype=torch.float32, trust_remote_code=False, **_without_pooler(config)
        )
    return getattr(model, "vision_model", model), _processor_of_random(source, model)


def _processor_of_random(source: RandomVision, model: Any) -> Any:
    if source.image_processor is not None:
        with loading(f"{FIELD}.image_processor", source.image_processor):
            return _processor(source.image_processor)
    beside = source.random
    if isinstance(beside, str) and (Path(beside) / "preprocessor_config.json").is_file():
        with loading(f"{FIELD}.random", beside):
            return _processor(beside)
    from transformers import ViTImageProcessorPil

    vision = getattr(model.config, "vision_config", model.config)
    size = getattr(vision, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    return ViTImageProcessorPil(size={"height": height, "width": width})


def _processor(name: str) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(name, trust_remote_code=False)


def _one_picture(image_processor: Any) -> Tensor:
    from PIL import Image

    grey = Image.new("RGB", (_GREY_SIDE, _GREY_SIDE), "grey")
    pixels: Tensor = image_processor(images=[grey], return_tensors="pt")["pixel_values"]
    if pixels.ndim != 4:
        raise ConfigError(
            f"{FIELD}: its preprocessing gives pixel_values of shape {list(pixels.shape)}, "
            "pictures of varying size: choose an encoder of one fixed size, as [pictures, 3, H, W]"
        )
    return pixels


def _without_pooler(config: Any) -> dict[str, bool]:
    """A ViT's pooler is made anew where the weights have none, and is never used here."""
    return {"add_pooling_layer": False} if config.model_type in ("vit", "deit") else {}


def _kind_of_folder(folder: Path) -> str:
    config = folder / "config.json"
    if not config.is_file():
        return "transformers"
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"{FIELD}: {config} is no JSON object ({error}): fetch it again"
        ) from error
    return kind if kind in VISION_LOADERS else "transformers"
