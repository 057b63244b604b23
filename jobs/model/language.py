"""Causal language models: any transformers one, from a folder, the hub, or the embedded world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mir.errors import ConfigError

_LAYERS = ("layers", "h", "blocks")
_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f")


@dataclass(frozen=True, kw_only=True)
class Language:
    """A causal language model and its tokenizer."""

    model: nn.Module
    tokenizer: Any


def load_language(name: str) -> Language:
    """Load 'embedded', a folder, or a hub name, in float32.

    Raises ConfigError if it cannot be loaded.
    """
    if name == "embedded":
        from jobs.world.load import load_language as load_embedded
        from jobs.world.load import load_tokenizer

        return Language(model=load_embedded(), tokenizer=load_tokenizer())
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"model.language: {name!r} cannot be loaded: {reason[0]}") from error
    return Language(model=model, tokenizer=tokenizer)


def decoder_parts(language: Any) -> tuple[Sequence[nn.Module], nn.Module | None]:
    """The decoder layers in order and the final norm, None where there is none.

    Raises ConfigError for a model whose layers are not found.
    """
    decoder = language.get_decoder()
    layers = next((getattr(decoder, name) for name in _LAYERS if hasattr(decoder, name)), None)
    if not isinstance(layers, nn.ModuleList):
        raise ConfigError(
            f"model.language: {type(language).__name__} keeps its decoder layers under none of "
            f"{', '.join(_LAYERS)}: choose another causal language model"
        )
    norm = next((getattr(decoder, name) for name in _NORMS if hasattr(decoder, name)), None)
    return list(layers), norm
