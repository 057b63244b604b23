"""MoCa: after each decoder layer, vision tokens are calibrated, h <- scale * h + shift.

Attached from outside by forward hooks, to the decoder layers of any transformers model: no
patched copy of transformers, and `remove` leaves the model as it was.

Source: Huang et al. 2024, arXiv 2410.07167, section 4. The other kinds are controls for what
the paper leaves open: is it alignment, or only normalisation or regularisation?

Shape suffixes: B batch, T sequence positions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mir.errors import ConfigError, MirsweepError

Kind = Literal["scale-shift", "scale-only", "shift-only", "layernorm", "noise"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_HAS_SCALE = {"scale-shift", "scale-only", "layernorm"}
_HAS_SHIFT = {"scale-shift", "shift-only", "layernorm"}


class Calibration(nn.Module):
    """The calibration after one decoder layer.

    scale, shift: float32 [D], drawn from N(1, std) and N(0, std); absent where the kind has none.

    Kinds, h in float32 at vision positions:
    scale-shift: scale * h + shift. The paper's.
    scale-only, shift-only: half of it each.
    layernorm: scale * r * layer_norm(h) + shift, with r the root mean square deviation of this
        sequence's vision tokens (no gradient), so that the residual stream keeps its magnitude:
        as many parameters as scale-shift, and in addition all tokens get one norm.
    noise: h * (1 + std * e) + std * e' with fresh normal e, e' [B, T, D], in training mode only:
        no parameters, the disturbance that random initialisation brings, as a regulariser.
    """

    scale: nn.Parameter | None
    shift: nn.Parameter | None

    def __init__(
        self, hidden_size: int, kind: Kind, std: float, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.kind = kind
        self.std = std
        draws = torch.randn(2, hidden_size, generator=generator) * std
        scale = nn.Parameter(1 + draws[0]) if kind in _HAS_SCALE else None
        shift = nn.Parameter(draws[1].clone()) if kind in _HAS_SHIFT else None
        self.register_parameter("scale", scale)
        self.register_parameter("shift", shift)

    def forward(self, hidden_BTD: Tensor, vision_mask_BT: Tensor) -> Tensor:
        """Hidden states with vision positions calibrated; all others keep their exact bits."""
        mask_BT1 = vision_mask_BT.to(hidden_BTD.device).unsqueeze(-1)
        calibrated_BTD = self._calibrate(hidden_BTD.float(), mask_BT1)
        return torch.where(mask_BT1, calibrated_BTD.to(hidden_BTD.dtype), hidden_BTD)

    def _calibrate(self, h_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        if self.kind == "noise":
            return self._disturb(h_BTD) if self.training else h_BTD
        if self.kind == "layernorm":
            h_BTD = _one_norm(h_BTD, mask_BT1)
        if self.scale is not None:
            h_BTD = self.scale.float() * h_BTD
        return h_BTD if self.shift is None else h_BTD + self.shift.float()

    def _disturb(self, h_BTD: Tensor) -> Tensor:
        # The global generator, because activation checkpointing restores its state and no other.
        factor = 1 + self.std * torch.randn_like(h_BTD)
        return h_BTD * factor + self.std * torch.randn_like(h_BTD)


def _one_norm(h_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    variance_BT1 = h_BTD.detach().var(dim=-1, correction=0, keepdim=True)
    count_B11 = mask_BT1.sum(dim=1, keepdim=True).clamp(min=1)
    mean_B11 = (variance_BT1 * mask_BT1).sum(dim=1, keepdim=True) / count_B11
    return nn.functional.layer_norm(h_BTD, h_BTD.shape[-1:]) * mean_B11.sqrt()


class Moca(nn.Module):
    """Calibrations attached to a decoder. Register it in the trained module: its parameters
    train with the projector, and ZeRO gathers them because each calibration is called.

        moca = Moca.attach(model.model.language_model.layers, hidden_size)
        with moca.positions(vision_mask_BT):
            model(...)

    Outside `positions` nothing changes; inside, sequences of another length than the mask pass
    untouched (single-token decoding). `state_dict` keys: `layers.<1-based number>.scale`.
    """

    def __init__(
        self,
        hidden_size: int,
        numbers: Sequence[int],
        *,
        kind: Kind = "scale-shift",
        init_std: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"moca.kind: {kind!r} is unknown. Known: {', '.join(KINDS)}.")
        if not init_std >= 0 or (kind == "noise" and init_std == 0):
            need = "above 0 for the kind 'noise'" if kind == "noise" else "0 or more"
            raise ConfigError(f"moca.init_std: {init_std!r} must be {need}")
        self.kind = kind
        self.layers = nn.ModuleDict(
            {str(n): Calibration(hidden_size, kind, init_std, generator) for n in numbers}
        )
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._mask_BT: Tensor | None = None
        self._trained_BT: Tensor | None = None
        self._awaiting_backward = False
        self._ambiguous = False

    @classmethod
    def attach(
        cls,
        decoder_layers: Sequence[nn.Module],
        hidden_size: int,
        *,
        kind: Kind = "scale-shift",
        layers: Literal["all"] | Sequence[int] = "all",
        init_std: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Moca:
        """Calibrate the outputs of decoder layers from now on, until `remove`.

        decoder_layers: modules that return hidden states [B, T, D] or a tuple that starts so.
        layers: which of them, 1-based, or "all".
        init_std: spread of the initial scale around 1 and shift around 0; 0 starts as identity.
        Parameters are float32 on the device of their layer. Raises ConfigError.
        """
        numbers = _numbers(layers, len(decoder_layers))
        moca = cls(hidden_size, numbers, kind=kind, init_std=init_std, generator=generator)
        for number in numbers:
            layer, calibration = decoder_layers[number - 1], moca.layers[str(number)]
            first = next(layer.parameters(), None)
            calibration.to(None if first is None else first.device)
            moca._handles.append(layer.register_forward_hook(moca._hook(calibration)))
        return moca

    @contextmanager
    def positions(self, vision_mask_BT: Tensor | None) -> Iterator[None]:
        """Within: True in the mask marks vision tokens; None marks none.

        A backward pass after it recomputes checkpointed layers with the mask of the last forward
        pass that recorded gradients. Two such passes before one backward need the block to stay
        open over the backward; anything else is refused.
        """
        before, self._mask_BT = self._mask_BT, _as_mask(vision_mask_BT)
        if self._mask_BT is not None and torch.is_grad_enabled():
            self._ambiguous = self._awaiting_backward
            self._trained_BT, self._awaiting_backward = self._mask_BT, True
        try:
            yield
        finally:
            self._mask_BT = before

    def remove(self) -> None:
        """Detach from the decoder, which then behaves as before `attach`."""
        while self._handles:
            self._handles.pop().remove()

    def _mask(self) -> Tensor | None:
        if self._mask_BT is not None or not _in_backward():
            return self._mask_BT
        self._awaiting_backward = False
        if self._ambiguous:
            raise MirsweepError(
                "MoCa: two forward passes recorded gradients before this backward pass, so the "
                "vision positions of the checkpointed layers are not known. Keep "
                "moca.positions(mask) open over the backward pass, or run passes without a "
                "backward pass under torch.no_grad()."
            )
        return self._trained_BT

    def _note_backward(self, _gradient: Tensor) -> None:
        self._awaiting_backward = False

    def _hook(self, calibration: nn.Module) -> Any:
        def calibrate(_layer: nn.Module, _args: Any, output: Any) -> Any:
            mask_BT = self._mask()
            hidden_BTD = output[0] if isinstance(output, tuple) else output
            if mask_BT is None or hidden_BTD.shape[1] != mask_BT.shape[1]:
                return output
            if len(hidden_BTD) != len(mask_BT):
                raise MirsweepError(
                    f"MoCa: the vision mask has {len(mask_BT)} sequences, the hidden states "
                    f"{len(hidden_BTD)}. Give positions() the mask of the batch that is run."
                )
            calibrated_BTD = calibration(hidden_BTD, mask_BT)
            if calibrated_BTD.requires_grad:
                calibrated_BTD.register_hook(self._note_backward)
            return (calibrated_BTD, *output[1:]) if isinstance(output, tuple) else calibrated_BTD

        return calibrate


def _in_backward() -> bool:
    graph_task: int = torch._C._current_graph_task_id()
    return graph_task != -1


def _as_mask(mask_BT: Tensor | None) -> Tensor | None:
    if mask_BT is not None and mask_BT.ndim != 2:
        raise MirsweepError(
            f"MoCa: the vision mask must have shape [B, T], not {list(mask_BT.shape)}"
        )
    return None if mask_BT is None else mask_BT.bool()


def _numbers(layers: Literal["all"] | Sequence[int], count: int) -> list[int]:
    if layers == "all":
        return list(range(1, count + 1))
    numbers = sorted({int(number) for number in layers})
    if not numbers or numbers[0] < 1 or numbers[-1] > count:
        raise ConfigError(
            f"moca.layers: {list(layers)} must name some of the decoder layers 1 to {count}"
        )
    return numbers
