"""LoRA on a language model, through peft: attached in place, and merged in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jobs.model.language import decoder_parts
from jobs.model.names import MARK, plain_name
from jobs.spec.trainable import LoraSpec
from mir.errors import ConfigError

FIELD = "model.trainable.lora"


def attach_lora(language: nn.Module, spec: LoraSpec, seed: int) -> None:
    """Give linear layers of the decoder low-rank updates, drawn from `seed`.

    They start at zero, so the model's output is what it was. Raises ConfigError where a target
    names no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = _targets(language, spec)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        fan_in_fan_out=any(_transposed(language.get_submodule(path)) for path in targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, language)


def merge_lora(language: nn.Module) -> None:
    """Fold the updates into the weights and take LoRA out: a plain transformers model remains.

    Does nothing to a model without LoRA. Raises ValueError if a merged weight is not finite.
    """
    for parent, name, layer in list(_lora_layers(language)):
        layer.merge(safe_merge=True)
        setattr(parent, name, layer.get_base_layer())


def updates(
    trained: Mapping[str, Tensor], spec: LoraSpec, model: nn.Module
) -> Iterator[tuple[str, Tensor]]:
    """What trained LoRA weights add to the weights of their layers, one at a time: the plain name
    of the weight, and the update in float64 and in the layout that the weight has in `model`, which
    may have LoRA of its own.
    """
    modules = {plain_name(path + ".")[:-1]: module for path, module in model.named_modules()}
    for name, down_RI in trained.items():
        layer, mark, _ = name.partition(f"{MARK}A.")
        if mark:
            up_OR = trained[name.replace(f"{MARK}A.", f"{MARK}B.")]
            update_OI = spec.alpha / spec.rank * (up_OR.double() @ down_RI.double())
            yield f"{layer}.weight", update_OI.T if _transposed(modules.get(layer)) else update_OI


def lora_modules(language: nn.Module) -> list[nn.Module]:
    """What has a training mode of its own: the updates with their dropout, not their layers."""
    parts = ("lora_A", "lora_B", "lora_dropout")
    return [getattr(layer, part) for _, _, layer in _lora_layers(language) for part in parts]


def _lora_layers(language: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    from peft.tuners.lora import LoraLayer

    for path, module in language.named_modules():
        if isinstance(module, LoraLayer):
            parent, _, name = path.rpartition(".")
            yield language.get_submodule(parent), name, module


def _targets(language: nn.Module, spec: LoraSpec) -> list[str]:
    """Full names of the linear layers that the spec means, among those of the decoder layers."""
    inside = {m for layer in decoder_parts(language)[0] for m in layer.modules()}
    linear = [
        path
        for path, module in language.named_modules()
        if module in inside and (isinstance(module, nn.Linear) or _transposed(module))
    ]
    if spec.targets == "all-linear":
        return linear
    names = {path.rpartition(".")[2] for path in linear}
    unknown = [target for target in spec.targets if target not in names]
    if unknown:
        raise ConfigError(
            f"{FIELD}.targets: {unknown[0]!r} names no linear layer of "
            f"{type(language).__name__}: choose among {', '.join(sorted(names))}"
        )
    return [path for path in linear if path.rpartition(".")[2] in spec.targets]


def _transposed(module: nn.Module | None) -> bool:
    """Whether it is GPT-2's linear layer, whose weight is [in, out]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)
