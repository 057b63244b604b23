"""In which type the weights of a model lie on disk."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import torch
from torch import nn

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SIXTEEN_BIT = {"BF16": torch.bfloat16, "F16": torch.float16}


def sixteen_bit(name: str) -> torch.dtype | None:
    """The 16-bit type that all weights of a folder or hub name are stored in, else None.

    Raises what transformers and safetensors raise for files that cannot be read.
    """
    from safetensors import safe_open

    first = _file(name, _WHOLE, _INDEX)
    parts = [first]
    if first is not None and Path(first).name == _INDEX:
        weight_map = json.loads(Path(first).read_text(encoding="utf-8"))["weight_map"]
        parts = [_file(name, part) for part in sorted(set(weight_map.values()))]
    found = set()
    for part in parts:
        if part is None:
            return None
        with safe_open(part, framework="pt") as weights:
            found |= {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118
    return _SIXTEEN_BIT.get(found.pop()) if len(found) == 1 else None


def same_as_from_float32(model: nn.Module) -> bool:
    """Whether a model loaded in 16 bits computes what it would if its engine had cast it to them.

    An engine casts parameters and leaves buffers, and modules that transformers keeps in float32,
    as they are; and an embedding that does more than look up rounds what it does.
    """
    kept = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    if any(getattr(module, name, None) for module in model.modules() for name in kept):
        return False
    narrow = [b for b in model.buffers() if b.is_floating_point() and b.dtype != torch.float32]
    return not narrow and type(model.get_input_embeddings()) is nn.Embedding  # type: ignore[operator]


def _file(name: str, *parts: str) -> str | None:
    """The first of these files that the folder or hub name has, None where it has none.

    The hub is asked for what is not here: else every rank would ask it for every file.
    """
    from transformers.utils.hub import cached_file

    for here, part in product((True, False), parts):
        found: str | None = cached_file(
            name,
            part,
            local_files_only=here,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found is not None:
            return found
    return None
