"""Pre-trains the tiny vision transformer of the embedded world by its scenes' known attributes.

Every patch learns to name the shape, colour, size and place of the object that covers it, the
mean of all patches the number of objects. The heads are thrown away afterwards.
Shapes: B images, P patches (64), D hidden size, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.world.captions import PLACES
from jobs.world.pretrain_language import cosine
from jobs.world.scenes import (
    COLOURS,
    PATCH,
    PATCHES,
    PIXELS,
    SHAPES,
    SIZES,
    Scene,
    covered_patches,
    render,
    scene_at,
)

if TYPE_CHECKING:
    from transformers import ViTImageProcessorPil, ViTModel

STEPS = 1800
BATCH = 32
LEARNING_RATE = 2e-3
INITIAL_STD = 0.08  # about 1 / sqrt(hidden size), as for the language model
WARMUP = 100
NOTHING_WEIGHT = 0.05
NOTHING = 0  # class of a patch that no object covers

# Attribute -> the names of its classes after NOTHING.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "place": PLACES,
}


class Heads(nn.Module):
    """One linear head an attribute for patches [B, P, D], one for the count."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.patch = nn.ModuleDict(
            {name: nn.Linear(hidden, 1 + len(values)) for name, values in ATTRIBUTES.items()}
        )
        self.count = nn.Linear(hidden, 4)

    def forward(self, patches_BPD: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Sum of the mean cross-entropies; empty patches, nine in ten, count little."""
        loss = functional.cross_entropy(self.count(patches_BPD.mean(dim=1)), targets["count"])
        for name, head in self.patch.items():
            logits = head(patches_BPD).flatten(0, 1)
            weight = torch.ones(logits.shape[1])
            weight[NOTHING] = NOTHING_WEIGHT
            loss = loss + functional.cross_entropy(logits, targets[name].flatten(), weight)
        return loss


def build_vision() -> ViTModel:
    """An untrained ViT of about 0.4 million parameters: 64 pixels, 64 patches, 4 layers."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        image_size=PIXELS,
        patch_size=PATCH,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=INITIAL_STD,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config, add_pooling_layer=False)


def build_image_processor() -> ViTImageProcessorPil:
    """Resizes to 64 x 64 and scales to [-1, 1]; Pillow and numpy only, no torchvision."""
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": PIXELS, "width": PIXELS})


def patch_classes(scene: Scene, attribute: str) -> list[int]:
    """Class of each patch, row by row: of the object whose box holds the patch's centre."""
    classes = [NOTHING] * PATCHES
    for thing in scene.things:
        value = 1 + ATTRIBUTES[attribute].index(getattr(thing, attribute))
        for number in covered_patches(thing):
            classes[number] = value
    return classes


def targets_of(scenes: list[Scene]) -> dict[str, Tensor]:
    """Classes by attribute [B, P], and the count minus one [B]."""
    targets = {
        name: torch.tensor([patch_classes(scene, name) for scene in scenes]) for name in ATTRIBUTES
    }
    targets["count"] = torch.tensor([len(scene.things) - 1 for scene in scenes])
    return targets


def pixels_of(scenes: list[Scene], processor: ViTImageProcessorPil) -> Tensor:
    """The rendered scenes as pixel values [B, 3, 64, 64]."""
    images = [render(scene) for scene in scenes]
    pixels: Tensor = processor(images=images, return_tensors="pt")["pixel_values"]
    return pixels


def train_vision(
    processor: ViTImageProcessorPil, say: Callable[[str], None], steps: int = STEPS
) -> ViTModel:
    """The pre-trained encoder, in evaluation mode. Deterministic on one machine."""
    torch.manual_seed(0)
    model = build_vision()
    heads = Heads(model.config.hidden_size)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine(s, steps, WARMUP))
    model.train()
    for step in range(steps):
        scenes = [scene_at("train", step * BATCH + offset) for offset in range(BATCH)]
        patches = model(pixel_values=pixels_of(scenes, processor)).last_hidden_state[:, 1:]
        loss = heads(patches, targets_of(scenes))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            say(f"vision step {step}/{steps} loss {loss.item():.3f}")
    return model.eval()
