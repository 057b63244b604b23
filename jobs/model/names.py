"""Names of a model's parameters: which part they belong to, and with and without LoRA."""

from __future__ import annotations

from collections.abc import Collection

MARK = ".lora_"  # in the names of LoRA's parameters and of no others
_BASE = ".base_layer."  # in the names of what LoRA was attached to


def part_of(name: str) -> str:
    """The part that a parameter of `Llava` belongs to, by its name: 'vision', 'lora', ..."""
    return "lora" if MARK in name else name.partition(".")[0]


def plain_name(name: str) -> str:
    """What a parameter under LoRA is called in the model without it."""
    return name.replace(_BASE, ".")


def updated_weights(trained: Collection[str]) -> set[str]:
    """Plain names of the weights that trained LoRA parameters add to."""
    return {f"{name.partition(MARK)[0]}.weight" for name in trained if MARK in name}


def wrapped_name(plain: str, trained: Collection[str]) -> str:
    """What the parameter `plain` was called in the job that trained the parameters `trained`."""
    layer, _, kind = plain.rpartition(".")
    under_lora = any(name.startswith(f"{layer}{MARK}") for name in trained)
    return f"{layer}{_BASE}{kind}" if under_lora else plain
