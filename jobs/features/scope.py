"""What decides the bits of a picture's features, as names of content."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from jobs.model.tower import VisionTower

if TYPE_CHECKING:
    from PIL.Image import Image

_PACKAGES = ("torch", "transformers", "numpy", "pillow")
# Where a model was loaded from, and by which version, says nothing of what it computes.
_PLACES = ("_name_or_path", "transformers_version")


def scope_of(tower: VisionTower, image_processor: Any) -> str:
    """Digest of encoder, select_layer, class token, preprocessing, precision and machine.

    tower: as it will be run, on its device and in its precision. The machine counts because other
    kernels round differently, and features must be the same with and without the cache.
    """
    digest = hashlib.sha256()
    first = next(tower.parameters())
    facts = {
        "encoder": [type(tower.encoder).__qualname__, _settings(tower.encoder.config)],
        "features": tower.settings,
        "processor": [type(image_processor).__qualname__, _settings(image_processor)],
        "dtype": str(first.dtype),
        "machine": _machine(first.device),
        "packages": {name: version(name) for name in _PACKAGES},
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    _weights(digest, tower)
    return digest.hexdigest()[:24]


def picture_name(image: Image) -> str:
    """Digest of a picture's mode, size and pixels."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{image.mode} {image.size} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _settings(thing: Any) -> dict[str, Any]:
    told: dict[str, Any] = thing.to_dict() if hasattr(thing, "to_dict") else vars(thing)
    return {name: value for name, value in told.items() if name not in _PLACES}


def _machine(device: torch.device) -> list[str]:
    if device.type == "cuda":
        return [torch.cuda.get_device_name(device)]
    return [torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())]


def _weights(digest: Any, module: nn.Module) -> None:
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
