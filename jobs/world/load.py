"""The shipped pair of models, as the rest of the code uses them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mir.errors import DataError

if TYPE_CHECKING:
    from transformers import (
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        ViTImageProcessorPil,
        ViTModel,
    )

ASSETS = Path(__file__).parent / "assets"
VISION = "vision"
LANGUAGE = "language"


def load_vision(assets: Path = ASSETS) -> ViTModel:
    """The pre-trained encoder: float32, evaluation mode, no pooling layer.

    pixel_values [B, 3, 64, 64] -> last_hidden_state [B, 1 + 64, 96]; the first is the class token.
    """
    import torch
    from transformers import ViTModel

    model = ViTModel.from_pretrained(
        _folder(assets, VISION), add_pooling_layer=False, dtype=torch.float32
    )
    return model.eval()


def load_language(assets: Path = ASSETS) -> LlamaForCausalLM:
    """The pre-trained causal language model: float32, evaluation mode, hidden size 128."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(_folder(assets, LANGUAGE), dtype=torch.float32)
    return model.eval()


def load_tokenizer(assets: Path = ASSETS) -> PreTrainedTokenizerFast:
    """The word-level tokenizer; puts <s> in front unless `add_special_tokens=False`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(_folder(assets, LANGUAGE))


def load_image_processor(assets: Path = ASSETS) -> ViTImageProcessorPil:
    """PIL images -> pixel_values [B, 3, 64, 64] in [-1, 1]."""
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil.from_pretrained(_folder(assets, VISION))


def _folder(assets: Path, name: str) -> Path:
    folder = assets / name
    if not (folder / "config.json").is_file():
        raise DataError(
            f"{folder}: no model here; make it with 'python -m jobs.world.pretrain --out {assets}'"
        )
    return folder
