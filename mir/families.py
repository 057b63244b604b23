"""Finds, in any image-text model of transformers, what the probe has to hook.

A model is accepted if its pictures stand in the token sequence and a causal decoder runs over
them. transformers itself is not imported: everything is read from the model and its config.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mir.errors import EmptyModalityError, MirError

_LAYERS = ("layers", "h", "blocks")
_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f")
_INNER = ("model", "decoder", "transformer")
_IMAGE_TOKEN = ("image_token_id", "image_token_index")


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model that scoring touches.

    body: what to call for a forward pass; see `without_head`.
    head: the language head where `body` would run it, else None.
    final_norm: None where the decoder has none.
    """

    body: nn.Module
    head: nn.Module | None
    decoder_layers: Sequence[nn.Module]
    final_norm: nn.Module | None
    image_token_id: int
    hidden_size: int


def anatomy(model: nn.Module) -> Anatomy:
    """Find decoder layers, final norm and image token of a transformers image-text model.

    Raises MirError with the reason if the pictures do not stand in the decoder's sequence
    (encoder-decoder, cross-attention, no image token) or no decoder layers can be found.
    """
    config: Any = model.config
    name = type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise _refused(
            name, "it is an encoder-decoder, so pictures and text never share a sequence"
        )
    decoder = _decoder(model, name)
    layers = next(getattr(decoder, a) for a in _LAYERS if _is_stack(decoder, a))
    crossing = next((path for path, _ in decoder.named_modules() if "cross" in path.lower()), None)
    if crossing is not None:
        raise _refused(name, f"it looks at pictures through cross-attention ({crossing})")
    norms = (getattr(decoder, a, None) for a in _NORMS)
    body, head = _body(model, decoder)
    return Anatomy(
        body=body,
        head=head,
        decoder_layers=list(layers),
        final_norm=next((norm for norm in norms if isinstance(norm, nn.Module)), None),
        image_token_id=_image_token(name, config),
        hidden_size=int(config.get_text_config().hidden_size),
    )


def token_positions(
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    image_token_id: int,
    max_text_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Which positions are vision and which text tokens: (vision_mask_BT, text_mask_BT).

    Vision: the image tokens. Text: everything after the last image token, at most the first
    `max_text_tokens` of it. What precedes or separates image tokens counts for neither, nor does
    padding. Raises EmptyModalityError if a sequence has no image token or nothing after it.
    """
    real_BT = attention_mask_BT.bool()
    vision_BT = (input_ids_BT == image_token_id) & real_BT
    seen_BT = vision_BT.cumsum(1)
    text_BT = (seen_BT == seen_BT[:, -1:]) & ~vision_BT & real_BT
    if max_text_tokens is not None:
        text_BT &= text_BT.cumsum(1) <= max_text_tokens
    for mask_BT, what in ((vision_BT, f"image token {image_token_id}"), (text_BT, "text token")):
        empty_B = ~mask_BT.any(1)
        if bool(empty_B.any()):
            row = int(empty_B.nonzero()[0])
            raise EmptyModalityError(
                f"sequence {row} of the batch has no {what}: check that the processor and the "
                "model belong together and that the text is not empty"
            )
    return vision_BT, text_BT


@contextmanager
def without_head(parts: Anatomy) -> Iterator[None]:
    """Within the block a forward pass computes no logits.

    Where transformers keeps the headless model as a module of its own, `body` is that one.
    Elsewhere the head is called, but with a sequence of length zero.
    """
    if parts.head is None:
        yield
        return
    handle = parts.head.register_forward_pre_hook(lambda _, args: (args[0][:, :0], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def _refused(name: str, reason: str) -> MirError:
    return MirError(
        f"{name} cannot be scored: {reason}. MIR needs vision and text tokens in one sequence of "
        "one decoder."
    )


def _is_stack(module: nn.Module, attribute: str) -> bool:
    return isinstance(getattr(module, attribute, None), nn.ModuleList)


def _decoder(model: nn.Module, name: str) -> nn.Module:
    """The module that holds the decoder layers, below causal-LM and multimodal wrappers."""
    find = getattr(model, "get_decoder", None)
    decoder: nn.Module = find() if find else model
    while not any(_is_stack(decoder, attribute) for attribute in _LAYERS):
        inner = [
            getattr(decoder, a) for a in _INNER if isinstance(getattr(decoder, a, None), nn.Module)
        ]
        if not inner:
            raise _refused(name, f"no decoder layers found in {type(decoder).__name__}")
        decoder = inner[0]
    return decoder


def _body(model: nn.Module, decoder: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """What to call, and the head that this call would run."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head else None
    inner = getattr(model, "base_model", model)
    inside = set(inner.modules())
    if inner is not model and decoder in inside and inner is not decoder and head not in inside:
        return inner, None
    return model, head


def _image_token(name: str, config: Any) -> int:
    for attribute in _IMAGE_TOKEN:
        token = getattr(config, attribute, None)
        if isinstance(token, int):
            return token
    raise _refused(name, f"its config names no image token ({' or '.join(_IMAGE_TOKEN)})")
