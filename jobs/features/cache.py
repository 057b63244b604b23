"""From a picture to its vision features, through what was computed before.

Legend: V vision tokens, F feature width.
"""

from __future__ import annotations

import copy
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jobs.engine.group import device_of
from jobs.features import FOLDER
from jobs.features.scope import picture_name, scope_of
from jobs.features.store import FeatureStore
from jobs.model.build import Built
from jobs.model.tower import VisionTower
from jobs.place import Place
from jobs.spec import JobSpec

if TYPE_CHECKING:
    from PIL.Image import Image

_GIB = 2**30
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_log = logging.getLogger(__name__)


class FeatureCache:
    """Features of a frozen encoder, picture by picture, from any thread.

    A picture is always encoded by itself, in a batch of one: so its features do not depend on
    which others a process happened to miss, and a job that finds all of them, some or none
    computes the same.
    """

    def __init__(self, tower: VisionTower, image_processor: Any, store: FeatureStore) -> None:
        """tower: a copy of its own, on its device and in its precision, that nobody changes."""
        self._tower, self._processor, self._store = tower, image_processor, store
        self._lock = threading.Lock()
        self.found = self.computed = 0

    def __call__(self, image: Image) -> Tensor:
        """Features [V, F] of a picture, on the CPU in the encoder's precision."""
        name = picture_name(image)
        features_VF = self._store.get(name)
        if features_VF is not None:
            self._count(found=1)
            return features_VF
        first = next(self._tower.parameters())
        pixels = self._processor(images=[image], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            features_1VF: Tensor = self._tower(pixels.to(first.device, first.dtype))
        features_VF = features_1VF[0].cpu().contiguous()
        self._store.put(name, features_VF)
        self._count(computed=1)
        return features_VF

    def holds(self, pictures: int) -> bool:
        """Whether so many pictures stay below the limit of the cache."""
        return self._store.room_for(pictures)

    def close(self) -> None:
        """Say in the log what was saved."""
        _log.info("features: %d found, %d computed", self.found, self.computed)

    def _count(self, found: int = 0, computed: int = 0) -> None:
        with self._lock:
            self.found += found
            self.computed += computed


def open_features(spec: JobSpec, built: Built, place: Place) -> FeatureCache | None:
    """The cache of a job's features, None where it is off or the encoder learns.

    built: as the run starts from it, before an engine takes hold of it.
    """
    model = spec.model
    if model.feature_cache == "off" or not built.model.frozen_vision:
        return None
    tower = copy.deepcopy(built.model.vision).eval()
    assert isinstance(tower, VisionTower)
    tower = tower.to(device_of(place), _DTYPES[spec.deepspeed.precision])
    folder = Path(model.feature_cache)
    if model.feature_cache == "auto":
        folder = (place.shared or place.folder) / FOLDER
    store = FeatureStore(
        folder,
        scope_of(tower, built.image_processor),
        (tower.tokens, tower.width),
        next(tower.parameters()).dtype,
        int(model.feature_cache_gib * _GIB),
    )
    return FeatureCache(tower, built.image_processor, store)
