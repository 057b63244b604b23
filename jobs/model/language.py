"""Causal language models: any transformers one, from a folder, the hub, random weights, or the
embedded world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jobs.model.source import loading, read_config, require_whole
from jobs.model.stored import same_as_from_float32, sixteen_bit
from jobs.spec.model import RandomLanguage
from mir.errors import ConfigError

FIELD = "model.language"
_LAYERS = ("layers", "h", "blocks")
_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f")


@dataclass(frozen=True, kw_only=True)
class Language:
    """A causal language model and its tokenizer."""

    model: nn.Module
    tokenizer: Any

    @property
    def width(self) -> int:
        """Hidden size D."""
        config: Any = self.model.config
        return int(config.get_text_config().hidden_size)


def load_language(source: str | RandomLanguage, *, as_stored: bool = False) -> Language:
    """Load 'embedded', a folder, or a hub name, or make random weights, in float32.

    as_stored: weights of a folder or hub name that are all stored in one 16-bit type keep it, where
    an engine that computes in 16 bits makes the same of them: half the memory.
    Weights that are not cast stay mapped to their safetensors files, as transformers maps them: the
    ranks of a node share the pages until DeepSpeed gives all but rank 0 copies of their own. On the
    CPU rank 0 keeps those that do not learn mapped for the whole run, short of ZeRO-3: overwritten
    in place, a file gives it other weights or ends it with SIGBUS. To put another in its place is
    safe.
    The caller's random state may change. Raises ConfigError if it cannot be loaded, or its
    tokenizer does not fit.
    """
    if isinstance(source, RandomLanguage):
        language = _random(source)
    elif source == "embedded":
        from jobs.world.load import load_language as load_embedded

        language = Language(model=load_embedded(), tokenizer=_tokenizer(source))
    else:
        name = str(Path(source).expanduser()) if source[0] == "~" else source
        language = _pretrained(name, as_stored)
    _require_fit(language)
    return language


def decoder_parts(language: Any) -> tuple[Sequence[nn.Module], nn.Module | None]:
    """The decoder layers in order and the final norm, None where there is none.

    Raises ConfigError for a model whose layers are not found.
    """
    decoder = language.get_decoder()
    layers = next((getattr(decoder, name) for name in _LAYERS if hasattr(decoder, name)), None)
    if not isinstance(layers, nn.ModuleList):
        raise ConfigError(
            f"{FIELD}: {type(language).__name__} keeps its decoder layers under none of "
            f"{', '.join(_LAYERS)}: choose another causal language model"
        )
    norm = next((getattr(decoder, name) for name in _NORMS if hasattr(decoder, name)), None)
    return list(layers), norm


def _pretrained(name: str, as_stored: bool) -> Language:
    with loading(FIELD, name):
        stored = sixteen_bit(name) if as_stored else None
        model, info = _read(name, stored or torch.float32)
        if stored is not None and not same_as_from_float32(model):
            del model  # else both were held at once
            model, info = _read(name, torch.float32)
    require_whole(FIELD, name, set(info["missing_keys"]))
    with loading(f"{FIELD} (its tokenizer)", name):
        return Language(model=model, tokenizer=_tokenizer(name))


def _read(name: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    read: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
        name, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    return read


def _random(source: RandomLanguage) -> Language:
    from transformers import AutoModelForCausalLM

    config = read_config(f"{FIELD}.random", source.random)
    with loading(f"{FIELD}.random", source):
        torch.manual_seed(source.seed)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
    name = source.tokenizer or (source.random if isinstance(source.random, str) else None)
    if name is None:
        raise ConfigError(
            f"{FIELD}.tokenizer: missing: a configuration has no words of its own. Name "
            "'embedded', a folder, or a hub name"
        )
    with loading(f"{FIELD}.tokenizer", name):
        return Language(model=model.eval(), tokenizer=_tokenizer(name))


def _tokenizer(name: str) -> Any:
    if name == "embedded":
        from jobs.world.load import load_tokenizer

        return load_tokenizer()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def _require_fit(language: Language) -> None:
    tokenizer, embedding = language.tokenizer, language.model.get_input_embeddings()  # type: ignore[operator]
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"{FIELD}: its tokenizer has no end-of-sequence token, so captions would have no end: "
            "set eos_token in its tokenizer_config.json"
        )
    words, rows = len(tokenizer), int(embedding.weight.shape[0])
    if words > rows:
        raise ConfigError(
            f"{FIELD}: the tokenizer has {words} tokens and the model embeddings for {rows}: take "
            f"the tokenizer that belongs to it, or set vocab_size to {words} or more"
        )
