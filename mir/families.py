"""Finds, in any image-text model of transformers, what the probe has to hook.

A model is accepted if its pictures stand in the token sequence and a causal decoder runs over
them. transformers itself is not imported: everything is read from the model and its config.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mir.capture import Subject
from mir.errors import EmptyModalityError, ModelError

_LAYERS = ("layers", "h", "blocks")
_INNER = ("model", "decoder", "transformer")
_IMAGE_TOKEN = ("image_token_id", "image_token_index")


def find_subject(model: nn.Module) -> Subject:
    """What to run and what to hook in a transformers image-text model.

    Raises ModelError with the reason if the pictures do not stand in the decoder's sequence
    (encoder-decoder, cross-attention) or no decoder layers can be found.
    """
    config: Any = model.config
    name = type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise _refused(
            name, "it is an encoder-decoder, so pictures and text never share a sequence"
        )
    decoder, layers = _decoder(model, name)
    crossing = next((path for path, _ in decoder.named_modules() if "cross" in path.lower()), None)
    if crossing is not None:
        raise _refused(name, f"it looks at pictures through cross-attention ({crossing})")
    body, head = _body(model, decoder)

    def forward(inputs: Mapping[str, Any]) -> None:
        with _no_logits(head):
            body(**inputs, use_cache=False)

    return Subject(
        module=model,
        forward=forward,
        decoder_layers=list(layers),
        # Its first output is `last_hidden_state`, whatever the final norm is called, if any.
        final_norm=decoder,
        hidden_size=int(config.get_text_config().hidden_size),
    )


def image_token_id(model: nn.Module) -> int:
    """The token that stands for the picture in `input_ids`; ModelError where there is none."""
    for attribute in _IMAGE_TOKEN:
        token = getattr(model.config, attribute, None)
        if isinstance(token, int):
            return token
    reason = f"its config names no image token ({' or '.join(_IMAGE_TOKEN)})"
    raise _refused(type(model).__name__, reason)


def token_positions(
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    image_token_id: int,
    max_text_tokens: int | None = None,
    marks: Collection[int] = (),
) -> tuple[Tensor, Tensor]:
    """Which positions are vision and which text tokens: (vision_mask_BT, text_mask_BT).

    Vision: the image tokens, which are the positions that picture features are written to (of
    all tiles; learned row ends that a model puts among its features are features too). Text:
    everything after the last image token except `marks`, at most the first `max_text_tokens` of
    it; template tokens and line breaks are text. What precedes or separates image tokens counts
    for neither, nor do `marks` and padding, on whichever side.

    marks: tokens that only bracket or number pictures and tiles, such as Qwen's
        <|vision_end|>: they belong to the image block, but no picture is in them.
    Raises EmptyModalityError if a sequence has no image token or nothing after it.
    """
    real_BT = attention_mask_BT.bool()
    vision_BT = (input_ids_BT == image_token_id) & real_BT
    seen_BT = vision_BT.cumsum(1)
    text_BT = (seen_BT == seen_BT[:, -1:]) & ~vision_BT & real_BT
    text_BT &= ~torch.isin(input_ids_BT, input_ids_BT.new_tensor([*marks]))
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
def _no_logits(head: nn.Module | None) -> Iterator[None]:
    """Within the block the head sees a sequence of length zero."""
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda _, args: (args[0][:, :0], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def _refused(name: str, reason: str) -> ModelError:
    return ModelError(
        f"{name} cannot be scored: {reason}. MIR needs vision and text tokens in one sequence of "
        "one decoder."
    )


def _decoder(model: nn.Module, name: str) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the decoder layers, below causal-LM and multimodal wrappers."""
    find = getattr(model, "get_decoder", None)
    decoder: nn.Module = find() if find else model
    while True:
        for attribute in _LAYERS:
            layers = getattr(decoder, attribute, None)
            if isinstance(layers, nn.ModuleList):
                return decoder, layers
        inner = [getattr(decoder, attribute, None) for attribute in _INNER]
        modules = [module for module in inner if isinstance(module, nn.Module)]
        if not modules:
            raise _refused(name, f"no decoder layers found in {type(decoder).__name__}")
        decoder = modules[0]


def _body(model: nn.Module, decoder: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """What to call for a forward pass, and the language head that this call would run.

    Where transformers keeps the headless model as a module of its own, that one is called.
    """
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head else None
    inner = getattr(model, "base_model", model)
    inside = set(inner.modules())
    if inner is not model and inner is not decoder and decoder in inside and head not in inside:
        return inner, None
    return model, head
