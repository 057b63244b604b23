"""EfficientNet-lite0 as a grid encoder: 7 x 7 x 1280 features of a 224-pixel picture.

Source: Tan and Le, "EfficientNet", arXiv 1905.11946, table 1, in the lite form (no squeeze and
excitation, ReLU6 instead of swish, stem and head not scaled). Batch norms are folded into the
convolutions: a frozen encoder has no use for them, and their float32 statistics do not mix with
other precisions. Shape legend: B pictures, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import pad

from mir.errors import ConfigError, DataError

MODEL_TYPE = "efficientnet-lite0"
# A stage: blocks, kernel, stride of its first block, expansion, channels out.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32
_HEAD = 1280
_EPSILON = 1e-3  # of the published batch norms


@dataclass(frozen=True)
class EncoderConfig:
    """What a projector needs to know.

    hidden_size: channels. image_size: pixels a side. patch_size: pixels a side of a grid cell.
    """

    hidden_size: int = _HEAD
    image_size: int = 224
    patch_size: int = 32
    model_type: str = MODEL_TYPE


@dataclass(frozen=True)
class EncoderOutput:
    """last_hidden_state: [B, 49, 1280], the grid row by row; there is no class token."""

    last_hidden_state: Tensor


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: the odd pixel goes to the right and bottom."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)]."""
        pads: list[int] = []
        for size in (input.shape[3], input.shape[2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(pad(input, pads))


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; added to its input where shapes allow."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = c_in * expand
        self.expand = nn.Sequential()
        if expand > 1:
            self.expand = nn.Sequential(SameConv(c_in, wide, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(
            SameConv(wide, wide, kernel, stride, groups=wide), nn.ReLU6()
        )
        self.project = SameConv(wide, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """The encoder without its classifier; `model(pixels).last_hidden_state` as in transformers.

    It has no `hidden_states`: only `select_layer` -1 can be asked of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = EncoderConfig()
        self.stem = nn.Sequential(SameConv(3, _STEM, 3, 2), nn.ReLU6())
        blocks: list[nn.Module] = []
        channels = _STEM
        for repeats, kernel, stride, expand, out in _STAGES:
            for turn in range(repeats):
                blocks.append(Block(channels, out, kernel, stride if turn == 0 else 1, expand))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(SameConv(channels, _HEAD, 1), nn.ReLU6())

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False) -> EncoderOutput:
        """pixel_values: [B, 3, 224, 224], scaled by `ImageProcessor`.

        Raises ConfigError where inner layers are asked for.
        """
        if output_hidden_states:
            raise ConfigError(f"model.select_layer: {MODEL_TYPE} gives its last layer only: use -1")
        grid = self.head(self.blocks(self.stem(pixel_values)))
        return EncoderOutput(last_hidden_state=grid.flatten(2).transpose(1, 2))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `load_vision` reads into a folder, which is made where there is none."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(state, path / "model.safetensors")
        config = json.dumps(asdict(self.config), indent=2)
        (path / "config.json").write_text(config + "\n", encoding="utf-8")


class ImageProcessor:
    """Pads to a white square, resizes to 224 pixels, and scales to (x - 127) / 128."""

    size = EncoderConfig.image_size

    def save_pretrained(self, folder: str | Path) -> None:
        """Nothing to write: it is the same for every folder."""

    def __call__(
        self, images: Image.Image | Sequence[Image.Image], return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """{'pixel_values': [B, 3, 224, 224] float32} for one or more RGB pictures."""
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r}: only 'pt' is known")
        several = [images] if isinstance(images, Image.Image) else images
        pixels = np.stack([self._square(image) for image in several])
        return {"pixel_values": (torch.from_numpy(pixels).permute(0, 3, 1, 2) - 127.0) / 128.0}

    def _square(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
        side = max(image.size)
        scale = self.size / side
        fitted = image.convert("RGB").resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
            Image.Resampling.BICUBIC,
        )
        canvas = Image.new("RGB", (self.size, self.size), "white")
        canvas.paste(fitted, ((self.size - fitted.width) // 2, (self.size - fitted.height) // 2))
        return np.asarray(canvas, dtype=np.float32)


def load_vision(folder: str | Path) -> EfficientNetLite:
    """The encoder in evaluation mode from a folder that `jobs.real.prepare` made.

    Raises DataError where the folder holds something else.
    """
    path = Path(folder)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        model = EfficientNetLite()
        model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path}: no {MODEL_TYPE} can be loaded ({error}): run bash infra/real-assets"
        ) from error
    if config.get("model_type") != MODEL_TYPE:
        raise DataError(f"{path}: model_type {config.get('model_type')!r}, not {MODEL_TYPE!r}")
    return model.eval()


def load_image_processor(folder: str | Path) -> ImageProcessor:
    """The preprocessing that belongs to `load_vision(folder)`; it is the same for every folder."""
    del folder
    return ImageProcessor()


def convert_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published checkpoint's tensors by this module's names, batch norms folded in.

    The classifier is left out. Raises DataError where a tensor is missing or of another shape.
    """
    state: dict[str, Tensor] = {}
    try:
        for place, norm, name in _convolutions():
            scale = (
                published[f"{norm}.weight"] / (published[f"{norm}.running_var"] + _EPSILON).sqrt()
            )
            state[f"{name}.weight"] = published[f"{place}.weight"] * scale[:, None, None, None]
            state[f"{name}.bias"] = (
                published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale
            )
        EfficientNetLite().load_state_dict(state, strict=True)
    except (KeyError, RuntimeError) as error:
        raise DataError(f"the EfficientNet-lite0 checkpoint does not fit: {error}") from error
    return state


def _convolutions() -> Iterator[tuple[str, str, str]]:
    """Published names of each convolution and its batch norm, and the name here."""
    yield "_conv_stem", "_bn0", "stem.0"
    number = 0
    for repeats, _, _, expand, _ in _STAGES:
        for _ in range(repeats):
            block = f"_blocks.{number}"
            if expand > 1:
                yield f"{block}._expand_conv", f"{block}._bn0", f"blocks.{number}.expand.0"
            yield f"{block}._depthwise_conv", f"{block}._bn1", f"blocks.{number}.depthwise.0"
            yield f"{block}._project_conv", f"{block}._bn2", f"blocks.{number}.project"
            number += 1
    yield "_conv_head", "_bn1", "head.0"
