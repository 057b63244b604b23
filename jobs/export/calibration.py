"""MoCa beside an exported model.

MoCa acts on vision positions only, and every weight of a decoder is shared by vision and text
positions; so a calibration cannot be folded into weights without calibrating the text as well. It
can be left out where it does nothing: `noise` disturbs training only, and a scale of 1 with a shift
of 0 is no change (exactly: layers that have not moved from `init_std` 0). All else is kept in
moca.safetensors. The calibration after the last layer changes no text logit, since nothing mixes
positions after it, but it is kept too, because hidden states and so MIR change with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mir.moca import Moca

WEIGHTS, SETTINGS = "moca.safetensors", "moca.json"


def acting_layers(moca: Moca | None) -> list[int]:
    """1-based numbers of the decoder layers whose calibration changes anything at inference."""
    if moca is None or moca.kind == "noise":
        return []
    return [int(number) for number, one in moca.layers.items() if not _is_identity(moca.kind, one)]


def _is_identity(kind: str, calibration: Any) -> bool:
    if kind == "layernorm":
        return False
    scale, shift = calibration.scale, calibration.shift
    ones = scale is None or bool((scale == 1).all())
    zeros = shift is None or bool((shift == 0).all())
    return ones and zeros


def save_moca(moca: Moca, folder: Path) -> None:
    """Write the calibrations that act."""
    from safetensors.torch import save_file

    numbers = acting_layers(moca)
    kept = tuple(f"layers.{number}." for number in numbers)
    state = {k: v.contiguous() for k, v in moca.state_dict().items() if k.startswith(kept)}
    save_file(state, folder / WEIGHTS)
    settings = {"kind": moca.kind, "layers": numbers}
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def attach_moca(llava: Any, folder: Path) -> Moca:
    """Attach what `save_moca` wrote to a LlavaForConditionalGeneration, from outside.

    From then on every pass calibrates the positions of the image token; `remove` on the returned
    Moca ends it. Steps of generation that hold no picture pass untouched.
    """
    from safetensors.torch import load_file

    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    decoder = llava.model.language_model
    moca = Moca.attach(
        decoder.layers,
        int(llava.config.text_config.hidden_size),
        kind=settings["kind"],
        layers=settings["layers"],
    )
    moca.load_state_dict(load_file(folder / WEIGHTS))
    moca.to(next(decoder.parameters()).device).eval().requires_grad_(False)
    image_id, open_blocks = llava.config.image_token_index, []

    def enter(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        mask = torch.eq(ids, image_id) if ids is not None else None
        block = moca.positions(mask)
        block.__enter__()
        open_blocks.append(block)

    def leave(*_: Any) -> None:
        open_blocks.pop().__exit__(None, None, None)

    llava.model.register_forward_pre_hook(enter, with_kwargs=True)
    llava.model.register_forward_hook(leave, always_call=True)
    return moca
