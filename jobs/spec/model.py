"""Which model a job builds and what of it learns."""

from __future__ import annotations

from typing import Literal

from jobs.spec.base import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt


class MocaSpec(Frozen):
    """Modality calibration after decoder layers, on vision positions (design section 4).

    layers: 1-based decoder layers, or 'all'.
    init_std: standard deviation of the initial scale and shift; 0 leaves the model unchanged.
    learning_rate: its own rate, None to follow the projector's.
    """

    kind: Literal["scale-shift", "scale-only", "shift-only", "layernorm", "noise"] = "scale-shift"
    layers: Literal["all"] | tuple[PositiveInt, ...] = "all"
    init_std: NonNegativeFloat = 0.0
    learning_rate: PositiveFloat | None = None


class ModelSpec(Frozen):
    """Vision encoder -> projector -> causal language model.

    vision, language: 'embedded' for the shipped pair, otherwise a folder or hub name.
    trainable: which parts learn.
    moca: None trains without MoCa.
    """

    vision: str = "embedded"
    language: str = "embedded"
    projector: Literal["linear", "mlp2x_gelu", "mlp3x_gelu", "pixel-shuffle"] = "mlp2x_gelu"
    select_layer: int = -1
    trainable: Literal["projector", "projector+language", "everything"] = "projector"
    moca: MocaSpec | None = None
