"""A vision encoder of any kind as what gives vision tokens.

Legend: B pictures, H and W their height and width in pixels, V vision tokens, F feature width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mir.errors import ConfigError

ClassToken = Literal["drop", "keep"]


class VisionTower(nn.Module):
    """A transformers vision model whose patch features are the vision tokens.

    select_layer: -1 takes the encoder's output after its final norm, any other index an entry of
        its `hidden_states` (LLaVA takes -2 of CLIP).
    class_token: 'keep' puts the class token before the patches; register tokens are dropped.
    pixels_1CHW: one preprocessed picture. It is run once: width (F) and tokens (V) are what comes
        out, and settings that the encoder cannot follow raise ConfigError.
    """

    def __init__(
        self,
        encoder: nn.Module,
        select_layer: int,
        class_token: ClassToken = "drop",
        *,
        pixels_1CHW: Tensor,
    ) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self._patch = _patch_size(encoder.config)
        self._layer = select_layer
        self._keep_class = class_token == "keep"
        with torch.no_grad():
            try:
                features_1VF = self(pixels_1CHW)
            except (TypeError, ValueError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(
                    f"model.vision: {self._name} cannot encode a picture of shape "
                    f"{list(pixels_1CHW.shape[1:])} ({' '.join(str(error).split())}): choose an "
                    "encoder of single pictures and its own preprocessing"
                ) from error
        self.tokens, self.width = features_1VF.shape[1:]

    @property
    def settings(self) -> dict[str, Any]:
        """What besides encoder and picture decides the features."""
        return {"select_layer": self._layer, "keep_class": self._keep_class}

    @property
    def layers(self) -> list[nn.Module]:
        """The encoder's layers in order. Raises ConfigError where it keeps no list of them."""
        modules = list(self.encoder.modules())
        for module in modules:
            if isinstance(module, nn.ModuleList):
                return list(module)
        chains = [list(module) for module in modules if isinstance(module, nn.Sequential)]
        if not chains:
            raise ConfigError(
                f"model.trainable.vision_from: {self._name} keeps no list of layers: use 'all'"
            )
        return max(chains, key=lambda chain: len(chain))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, V, F]."""
        inner = self._layer != -1
        out = self.encoder(pixel_values=pixels_BCHW, output_hidden_states=inner)
        states = self._selected(out.hidden_states) if inner else out.last_hidden_state
        if states.ndim == 4:  # a convolutional grid [B, F, h, w]
            states = states.flatten(2).transpose(1, 2)
        features: Tensor = self._without_specials(states, *pixels_BCHW.shape[-2:])
        return features

    def _selected(self, hidden_states: tuple[Tensor, ...] | None) -> Tensor:
        if hidden_states is None:
            raise ConfigError(
                f"model.select_layer: {self._name} gives no inner layers, {self._layer} cannot be "
                "had: use -1"
            )
        count = len(hidden_states)
        if not -count <= self._layer < count:
            raise ConfigError(
                f"model.select_layer: {self._layer} is out of range: {self._name} has "
                f"{count - 1} layers: use {-count} to {count - 1}"
            )
        return hidden_states[self._layer]

    def _without_specials(self, states_BTF: Tensor, height: int, width: int) -> Tensor:
        """Drop what stands before the patches; encoders that merge patches have no such tokens."""
        specials = 0
        if self._patch is not None:
            patches = (height // self._patch[0]) * (width // self._patch[1])
            specials = max(0, states_BTF.shape[1] - patches)
        if not self._keep_class:
            return states_BTF[:, specials:]
        if specials == 0:
            raise ConfigError(
                f"model.class_token: {self._name} has no class token to keep: use 'drop'"
            )
        return torch.cat([states_BTF[:, :1], states_BTF[:, specials:]], dim=1)

    @property
    def _name(self) -> str:
        return type(self.encoder).__name__


def _patch_size(config: Any) -> tuple[int, int] | None:
    size = getattr(config, "patch_size", None)
    if size is None:
        return None
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
