"""fp16's loss scale: it follows the gradients, so a resumed run must begin with the one it had.

DeepSpeed multiplies the loss so that small gradients do not vanish in half precision. A step whose
gradients overflow is left out and the scale halved (the first time only after a warning, its
hysteresis); after many good steps it doubles.
Source: Micikevicius et al., "Mixed Precision Training", arXiv 1710.03740.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KEY = "fp16/loss_scale"
_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class LossScale:
    """Reads and writes the loss scale of a DeepSpeed engine; in other precisions there is none."""

    def __init__(self, engine: Any) -> None:
        self._optimizer = engine.optimizer
        self._plain = engine.zero_optimization_stage() == 0
        self._scaler: Any = None
        if engine.fp16_enabled():
            name = "loss_scale_config" if self._plain else "loss_scaler"
            self._scaler = getattr(self._optimizer, name)
        self._used = 1.0  # what DeepSpeed's norm of the last step is to be divided by

    def multiply(self, loss: Tensor, parts: int) -> None:
        """Let the gradient of `loss`, one of `parts` of a step, begin with the scale.

        DeepSpeed 0.19 does so for ZeRO; at stage 0 it divides the gradients by a scale that it has
        not multiplied the loss by (its pull request 8393). Set outright, it is right either way.
        """
        if self._plain and self._scaler is not None:
            self._used = float(self._scaler.cur_scale)
            start = self._used / parts
            loss.register_hook(lambda gradient: torch.full_like(gradient, start))

    def norm(self, told: float) -> float:
        """The norm of the gradients, where DeepSpeed tells that of the scaled ones at stage 0."""
        return told / self._used

    @property
    def overflowed(self) -> bool:
        """Whether the last step was left out; the same on every rank."""
        return self._scaler is not None and bool(self._optimizer.overflow)

    @property
    def exhausted(self) -> bool:
        """Whether gradients overflow although the scale can hardly become smaller."""
        if not self.overflowed:
            return False
        smallest = getattr(self._scaler, "min_scale", None) or self._scaler.min_loss_scale
        return float(self._scaler.cur_scale) <= float(smallest)

    def state(self, updates: int) -> dict[str, Tensor]:
        """What a checkpoint keeps, empty in other precisions: {KEY: [5], float64 on the CPU}.

        updates: steps so far that changed the weights. Scales are powers of two: exact.
        """
        if self._scaler is None:
            return {}
        fields = [float(getattr(self._scaler, name, 0)) for name in _FIELDS]
        return {KEY: torch.tensor([*fields, float(updates)], dtype=torch.float64)}

    def restore(self, tensors: dict[str, Tensor], steps: int) -> int:
        """Take over what `state` gave; how many of the run's `steps` changed the weights.

        A checkpoint of another precision has no scale: then it begins anew.
        """
        if KEY not in tensors:
            return steps
        *fields, updates = tensors[KEY].tolist()
        if self._scaler is not None:
            for name, value in zip(_FIELDS, fields, strict=True):
                # Only ZeRO's has a hysteresis; one from stage 0 (0) leaves it at its start.
                if hasattr(self._scaler, name) and (name != "cur_hysteresis" or value):
                    own = float if name == "cur_scale" else int
                    setattr(self._scaler, name, own(value))
        return int(updates)
